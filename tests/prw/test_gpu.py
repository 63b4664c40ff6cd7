"""What only a GPU can get wrong: devices, pinned memory, half precision, on both families. Skipped without one."""

import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.bank.importers import open_experts
from cologen.prw.base_model import Base
from cologen.prw.base_weights import BaseWeights
from cologen.prw.embedded_host import velocity
from cologen.prw.flux.families import Flux
from cologen.prw.flux.inputs import FluxInputs
from cologen.prw.select_experts import ExpertBank
from cologen.training.cli.main import main
from tiny import inputs, latent, source, tiny_bank, tiny_flux
from tiny_flux2 import flux2_inputs, tiny_flux2
from tiny_template import save_template

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


class Case(NamedTuple):
    """A tiny FLUX, what reads its sources, the channels of its latents, and two pictures to ask it for."""

    flux: Flux
    bank: ExpertBank
    channels: int
    inputs: FluxInputs

    def make_source(self, **knobs):
        return source(latent_=latent(1, 8, 8, seed=3, channels=self.channels), **knobs)


def make_flux1():
    flux = tiny_flux()
    return Case(flux, tiny_bank(flux), 16, FluxInputs(*inputs(2)))


def make_flux2():
    flux = tiny_flux2()
    return Case(flux, tiny_bank(flux), 128, flux2_inputs(2))


def make_flux2_without_bank():
    flux = tiny_flux2(guidance_embed=True)
    return Case(flux, BaseWeights(Base.of(flux)), 128, flux2_inputs(2, guided=True))


def make_flux2_with_template():
    """A whole model, whose weights stay on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        return Case(tiny_flux2(), open_experts(save_template(Path(folder))[0]), 128, flux2_inputs(2))


CASES = {
    "FLUX.1": make_flux1,
    "FLUX.2": make_flux2,
    "FLUX.2 without a bank": make_flux2_without_bank,
    "FLUX.2 with a template": make_flux2_with_template,
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]()


def run(case, one, device, dtype, runs=1):
    attachment, flux = Attachment(case.bank), case.flux.to(device)
    x, times, context, pooled, guidance = (None if part is None else part.to(device) for part in case.inputs)
    pooled = None if pooled is None else pooled.to(dtype)
    for _ in range(runs):
        found = velocity(flux, x.to(dtype), times, context.to(dtype), pooled, guidance, attachment, [one])
        attachment.cleanup()
    return found.float().cpu()


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("placement", ["gpu", "cpu", "fp8"])
def test_the_gpu_gives_what_the_cpu_gives(case, placement, keep):
    one = case.make_source(placement=placement, keep=keep, source_strength=0.6)
    expected = run(case, one, "cpu", torch.float32)
    found = run(case, one, "cuda", torch.float32, runs=2)
    assert (found - expected).abs().mean() < 5e-3 * expected.abs().mean()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_low_precision_weights_run_on_the_gpu(case, dtype):
    case.flux.to(dtype)
    found = run(case, case.make_source(), "cuda", torch.bfloat16)
    case.flux.float()
    expected = run(case, case.make_source(), "cpu", torch.float32)
    assert (found - expected).abs().mean() < 0.1 * expected.abs().mean()


@pytest.mark.parametrize("preset", ["flux1", "klein4b"])
@pytest.mark.parametrize("host", ["embedded", "comfyui"])
def test_a_bench_tells_the_peak_of_each_step(capsys, request, preset, host):
    if host == "comfyui":
        request.getfixturevalue("comfy")
    small = "--width 256 --double 1 --single 1 --target 64 --source 64 --text 8 --repeats 1 --device cuda --json"
    assert main(["bench", "inference", "--preset", preset, "--host", host, *small.split()]) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert found["peak_mib"].keys() >= {"plain", "cached", "concat", "source_pass"} and found["clock"] == "wall"
