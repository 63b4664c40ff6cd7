"""A base in fewer bits computes, and hands gradients on, as one with the numbers that its codes stand for."""

import copy

import numpy as np
import pytest
import torch
from cologen.prw.flux.layers import Linear
from cologen.prw.weaving import named_blocks
from cologen.training.base.compile import compile_blocks
from cologen.training.base.placement import place_base
from cologen.training.base.quantize import FORMATS, NF4, QuantizedLinear, dequantize, quantize_blocks
from cologen.training.bench.training import count_saved_bytes
from cologen.training.memory_estimate import estimate_memory
from cologen.training.recipes.curriculum import Settings
from scipy.stats import norm
from tiny_run import gradients, tiny_host, tiny_trainer

KINDS = sorted(FORMATS)


def naive(kind, row):
    """What the numbers that share a scale become, one by one."""
    largest = max(abs(x) for x in row)
    if kind == "int8":
        return [round(x / (largest / 127)) * (largest / 127) for x in row]
    if kind == "nf4":
        return [min(NF4, key=lambda code: abs(code - x / largest)) * largest for x in row]
    grid = [
        (-1) ** s * (m / 8 * 2**-6 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7))
        for s in (0, 1)
        for e in range(16)
        for m in range(8)
    ]
    grid = [x for x in grid if abs(x) <= 448]
    return [min(grid, key=lambda code: abs(code - x / (largest / 448))) * (largest / 448) for x in row]


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_become_the_nearest_of_their_format(kind):
    weight = torch.randn(5, 128, generator=torch.Generator().manual_seed(1))
    rows = weight.view(-1, 64) if kind == "nf4" else weight
    expected = torch.tensor([naive(kind, row) for row in rows.tolist()]).view_as(weight)
    codes, scale = FORMATS[kind].quantize(weight)
    assert torch.allclose(dequantize(codes, scale, kind, 128), expected, rtol=1e-5, atol=1e-7)
    assert codes.nbytes + scale.nbytes == pytest.approx(weight.numel() * FORMATS[kind].bytes + 4 * 5 * (kind != "nf4"))
    assert not dequantize(*FORMATS[kind].quantize(torch.zeros(1, 64)), kind, 64).any()


def test_nf4_has_the_quantiles_of_a_normal_distribution():
    side = [norm.ppf(np.linspace(0.9677083, 0.5, count)[:-1]) for count in (9, 8)]
    table = np.sort(np.concatenate((side[0], [0.0], -side[1])))
    assert np.allclose(table / np.abs(table).max(), NF4, atol=1e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_a_base_widened_by_hand(kind, checkpointing):
    narrow, wide = tiny_host(), tiny_host()
    whole = {name: copy.deepcopy(module) for name, module in narrow.flux.named_modules() if isinstance(module, Linear)}
    place_base(narrow.flux, Settings(base_weights=kind), "cpu")
    found = {name: module for name, module in narrow.flux.named_modules() if isinstance(module, QuantizedLinear)}
    assert len(found) == 10 + 2 * 3 and all(name.split(".")[0].endswith("_blocks") for name in found)
    for name, module in found.items():
        weight = wide.flux.get_submodule(name).weight
        weight.data = dequantize(module.codes, module.scale, kind, module.in_features)
        assert 0 < (weight - whole[name].weight).norm() / whole[name].weight.norm() < 0.15
    ours, theirs = (gradients(tiny_trainer(host, checkpointing=checkpointing)) for host in (narrow, wide))
    assert ours[1] == theirs[1]
    for name, gradient in theirs[0].items():
        assert torch.equal(ours[0][name], gradient), name
        assert gradient.any() or name.endswith(".noise")


def test_no_copy_of_the_weights_waits_for_the_gradient():
    narrow, plain = tiny_host(), tiny_host()
    quantize_blocks(narrow.flux, "nf4", "cpu")
    kept = [count_saved_bytes(tiny_trainer(host).train_iteration, host.flux) for host in (narrow, plain)]
    assert kept[0] == kept[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_its_size_is_counted_and_it_compiles(kind):
    host = tiny_host()
    blocks = [p for _, block in named_blocks(host.flux) for p in block.parameters() if p.ndim == 2]
    numbers, rows = sum(p.numel() for p in blocks), sum(len(p) for p in blocks)
    quantize_blocks(host.flux, kind, "cpu")
    trainer = tiny_trainer(host)
    codes = str(next(p for n, p in host.flux.named_parameters() if n.endswith("codes")).dtype).removeprefix("torch.")
    assert estimate_memory(trainer).base[codes] == (numbers // 2 if kind == "nf4" else numbers)
    scales = sum(p.nbytes for n, p in host.flux.named_parameters() if n.endswith("scale") and "norm" not in n)
    assert scales == (numbers // 64 if kind == "nf4" else rows) * 4
    plain = trainer.train_iteration()
    again = tiny_trainer(host)
    compile_blocks(host.flux, "eager")
    assert again.train_iteration().task_loss == pytest.approx(plain.task_loss, rel=1e-6)
