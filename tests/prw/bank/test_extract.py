"""A template as a difference to its base: what is kept is the template itself, and what is left out is what is said."""

from dataclasses import replace

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.bank.difference import METADATA, DifferenceInfo, TemplateDifference
from cologen.prw.bank.extract import ExtractedTensors
from cologen.prw.bank.importers import open_experts
from cologen.prw.bank.summary import describe_bank
from cologen.prw.base_model import Base
from cologen.prw.embedded_host import velocity
from cologen.prw.files.errors import FileError
from cologen.prw.source import Source
from cologen.prw.weaving import named_blocks
from safetensors.torch import load_file, save_file
from tiny_flux2 import TEXT_WIDTH, flux2_inputs, tiny_flux2
from tiny_template import template_weights

FULL = 4096


def make_template(base, rank=0, seed=5):
    """Another training of a base: everything differs, matrices by this rank (0: by all)."""
    g = torch.Generator().manual_seed(seed)

    def learn(weight):
        if weight.ndim < 2 or not rank:
            return 0.2 * weight.std() * torch.randn(weight.shape, generator=g)
        up, down = torch.randn(len(weight), rank, generator=g), torch.randn(rank, weight.shape[1], generator=g)
        return 0.2 * up @ down / weight.shape[1] ** 0.5

    return {name: weight + learn(weight) for name, weight in base.items()}


def extract(template, base, rank, folder, dtype=torch.float32):
    tensors = ExtractedTensors(template, base, rank, dtype)
    info = DifferenceInfo(Base.of(tiny_flux2()), "template.safetensors", rank)
    path = TemplateDifference(info, tensors).save(folder / f"{rank}.safetensors")
    return TemplateDifference.open(path), tensors.error


def read_all_kv(flux):
    """Keys and values of every block, of a picture and a prompt at timestep 0: what a template is read by."""
    found = {}

    def keep(q, k, v, extra_options, **_):
        found[extra_options["block_type"], extra_options["block_index"]] = k, v
        return {}

    x, _, context, *_ = flux2_inputs(2, 3, 4)
    flux(x, torch.zeros(2), context, transformer_options={"patches": {"attn1_patch": [keep]}})
    assert len(found) == len(list(named_blocks(flux)))
    return torch.cat([part.flatten() for pair in found.values() for part in pair])


def load(weights):
    flux = tiny_flux2()
    flux.load_state_dict(weights)
    return flux


@pytest.fixture(scope="module")
def base():
    return tiny_flux2().state_dict()


@pytest.mark.parametrize("learned, rank", [(0, FULL), (3, 3), (3, FULL)])
def test_at_full_rank_the_base_with_it_is_the_template(base, tmp_path, learned, rank):
    template, flux = make_template(base, learned), load(base)
    difference, error = extract(template, base, rank, tmp_path)
    assert any(name.endswith(".down") for name in difference.tensors) and error.total < 1e-5
    expected, before = read_all_kv(load(template)), read_all_kv(flux)
    found = read_all_kv(difference.build(flux))
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (before - expected).abs().max() > 0.1 and torch.equal(read_all_kv(flux), before)


@pytest.mark.parametrize("rank, dtype", [(1, torch.float32), (8, torch.bfloat16), (40, torch.float32)])
def test_the_error_is_that_of_the_best_approximation_there_is(base, tmp_path, rank, dtype):
    template = make_template(base)
    difference, error = extract(template, base, rank, tmp_path, dtype)
    tensors = load_file(tmp_path / f"{rank}.safetensors")

    def product(layer):
        return tensors[f"{layer}.up"].float() @ tensors[f"{layer}.down"].float()

    for name in (name for name in base if f"{name.removesuffix('.weight')}.up" in tensors and "modulation" not in name):
        layer = name.removesuffix(".weight")
        learned = (template[name] - base[name]).double()
        u, s, v = torch.linalg.svd(learned, full_matrices=False)
        found = float((learned - product(layer)).norm() / learned.norm())
        off, of = error.squares[layer]
        assert (off / of) ** 0.5 == pytest.approx(found, rel=1e-3)
        assert found == pytest.approx(float(s[rank:].norm() / s.norm()), rel=0.01)
    block = {layer: pair for layer, pair in error.squares.items() if layer.startswith("double_blocks.1.")}
    off, of = (sum(part) for part in zip(*block.values()))
    by_block = error.group(lambda layer: ".".join(layer.split(".")[:2]))
    assert len(block) == 12 and by_block["double_blocks.1"] == pytest.approx((off / of) ** 0.5)


def test_the_randomized_factors_are_the_best_ones():
    from cologen.prw.bank.extract import factor

    g = torch.Generator().manual_seed(0)
    decaying = torch.randn(500, 300, generator=g) * 0.97 ** torch.arange(300)
    state = torch.get_rng_state()
    down, up = factor(decaying, 20)
    assert torch.equal(torch.get_rng_state(), state)
    _, s, _ = torch.linalg.svd(decaying)
    assert float((decaying - up @ down).norm() / s[20:].norm()) == pytest.approx(1, rel=2e-3)


def test_a_layer_that_learned_nothing_is_left_out(base, tmp_path):
    template = make_template(base)
    template = {
        name: base[name] if name.startswith("single_blocks.1.") else weight for name, weight in template.items()
    }
    difference, _ = extract(template, base, 2, tmp_path)
    assert not any(name.startswith("single_blocks.1.") for name in difference.tensors)
    assert any(name.startswith("single_blocks.2.") for name in difference.tensors)


def wider(base):
    return tiny_flux2(context_in_dim=56).state_dict()


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda base: dict(base), "is the base itself"),
        (lambda base: wider(base), r"txt_in.weight has shape \(256, 56\) in the template and \(256, 48\) in the base"),
        (
            lambda base: tiny_flux2(depth=1).state_dict(),
            "The base has double_blocks.1.* the template has not: choose the base",
        ),
        (lambda base: tiny_flux2(depth=3).state_dict(), "The template has double_blocks.2.* the base has not: choose"),
        (lambda base: {k: v.to(torch.float8_e4m3fn) for k, v in base.items()}, "The template is fp8, whose rounding"),
    ],
)
def test_a_base_that_is_not_the_template_s_is_a_sentence(base, change, sentence):
    with pytest.raises(FileError, match=sentence):
        ExtractedTensors(change(base), base, 4, torch.float32)


def test_numbers_that_are_not_finite_are_a_sentence(base, tmp_path):
    template = make_template(base)
    template["img_in.weight"][0, 0] = float("nan")
    with pytest.raises(FileError, match="img_in holds numbers that are not finite"):
        extract(template, base, 4, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_difference_for_another_shape_is_a_sentence(base, tmp_path):
    difference, _ = extract(make_template(base), base, 2, tmp_path)
    with pytest.raises(FileError, match="The model has double_blocks 3, the template was made for 2"):
        difference.build(tiny_flux2(depth=3))


def picture(bank, flux, **knobs):
    g = torch.Generator().manual_seed(8)
    source = Source(torch.randn(1, 128, 3, 5, generator=g), prompt=torch.randn(1, 4, TEXT_WIDTH, generator=g), **knobs)
    return velocity(flux, *flux2_inputs(2), Attachment(bank), [source])


def test_its_file_reads_sources_as_the_template_s_own_file_does(base, tmp_path):
    flux, template = load(base), make_template(base, 3)
    save_file(template_weights(template), tmp_path / "template.safetensors")
    extract(template, base, 3, tmp_path)
    whole, small = (open_experts(tmp_path / f"{name}.safetensors") for name in ("template", 3))
    assert small.info.models["template_safetensors"].on_base and not small.info.experts
    for knobs in ({}, {"strength": 0.4}):
        expected = picture(whole, flux, **knobs)
        assert (picture(small, flux, **knobs) - expected).abs().max() < 1e-5 * expected.abs().max()
        assert (flux(*flux2_inputs(2)) - expected).abs().max() > 0.01


def test_its_licence_is_said(base, tmp_path):
    difference, _ = extract(make_template(base, 1), base, 1, tmp_path)
    licensed = replace(difference.info, licence="for tests only")
    path = TemplateDifference(licensed, difference.tensors).save(tmp_path / "licensed.safetensors")
    assert "licence  for tests only" in describe_bank(open_experts(path), "licensed").splitlines()


def test_it_follows_the_weights_of_its_base(base, tmp_path):
    """What is kept between steps does not outlive a change of them."""
    extract(make_template(base, 3), base, 3, tmp_path)
    flux, bank = load(base), open_experts(tmp_path / "3.safetensors")
    attachment, source = Attachment(bank), Source(torch.ones(1, 128, 2, 2))
    velocity(flux, *flux2_inputs(), attachment, [source])
    flux.double_blocks[0].img_attn.qkv.weight.mul_(1.1)
    found = velocity(flux, *flux2_inputs(), attachment, [source])
    assert torch.equal(found, velocity(flux, *flux2_inputs(), Attachment(bank), [source]))


def test_it_runs_on_the_host_s_own_layers(comfy, base, tmp_path):
    """Moving or dropping it leaves them alone."""
    from cologen.training.comfyui.enter_host import load_model

    template = make_template(base, 3)
    difference, _ = extract(template, base, 3, tmp_path)
    model = difference.build(load_model(base, torch.float32).model.diffusion_model)
    expected = read_all_kv(load(template))
    assert (read_all_kv(model.to("meta")) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_layer_that_the_base_has_not_is_a_sentence(base, tmp_path):
    difference, _ = extract(make_template(base), base, 2, tmp_path)
    for layer, rows in (("img_in", 255), ("img_out", 256)):
        pair = {f"{layer}.down": torch.ones(2, 128), f"{layer}.up": torch.ones(rows, 2)}
        with pytest.raises(FileError, match=f"difference in {layer} fits no layer of this FLUX"):
            TemplateDifference(difference.info, pair).build(load(base))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("img_in.up"),
        lambda t: t.update({"img_in.up": torch.ones(256, 3)}),
        lambda t: t.update({"img_in.difference": torch.ones(256, 128)}),
        lambda t: t.update({"img_in.more": torch.ones(2)}),
        lambda t: t.update({"img_in.down": torch.ones(2, 128, dtype=torch.int32)}),
    ],
)
def test_a_damaged_file_is_a_sentence(base, tmp_path, change):
    extract(make_template(base), base, 2, tmp_path)
    tensors, path = load_file(tmp_path / "2.safetensors"), tmp_path / "bad.safetensors"
    change(tensors)
    save_file(tensors, path, METADATA.encode(DifferenceInfo()))
    with pytest.raises(FileError, match=r"bad.safetensors.* img_in.*extract it again"):
        TemplateDifference.open(path)
