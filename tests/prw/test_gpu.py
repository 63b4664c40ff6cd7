"""What only a GPU can get wrong: devices, pinned memory, half precision. Skipped without one."""

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.embedded_host import velocity
from tiny import inputs, source, tiny_bank, tiny_flux

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def run(flux, bank, one, device, dtype, runs=1):
    attachment = Attachment(bank)
    for _ in range(runs):
        x, t, *rest = (tensor.to(device) for tensor in inputs(2, dtype=dtype))
        found = velocity(flux.to(device), x, t, *rest, attachment, [one])
        attachment.cleanup()
    return found.float().cpu()


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("placement", ["gpu", "cpu", "fp8"])
def test_the_gpu_gives_what_the_cpu_gives(placement, keep):
    flux = tiny_flux()
    bank, one = tiny_bank(flux), source(placement=placement, keep=keep, source_strength=0.6)
    expected = run(flux, bank, one, "cpu", torch.float32)
    found = run(flux, bank, one, "cuda", torch.float32, runs=2)
    assert (found - expected).abs().mean() < 5e-3 * expected.abs().mean()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_low_precision_weights_run_on_the_gpu(dtype):
    flux = tiny_flux()
    bank = tiny_bank(flux)
    expected = run(flux.to(dtype).float(), bank, source(), "cpu", torch.float32)
    found = run(tiny_flux(dtype), bank, source(), "cuda", torch.bfloat16)
    assert (found - expected).abs().mean() < 0.1 * expected.abs().mean()
