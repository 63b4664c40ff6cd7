"""Our FLUX.2 is diffusers' and the host's."""

import pytest
import torch
from cologen.prw.flux.checkpoint import load_flux
from cologen.prw.flux.families import FLUX2
from flux2_in_diffusers import convert_to_diffusers
from safetensors.torch import save_file
from tiny_flux2 import flux2_inputs, tiny_flux2

SIZES = [(1, 4, 4), (2, 3, 5), (3, 1, 7)]


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("batch, height, width", SIZES)
def test_forward_is_diffusers(batch, height, width, guided):
    flux = tiny_flux2(guidance_embed=guided)
    x, times, context, _, guidance = flux2_inputs(batch, height, width, guided)
    tokens, img_ids = flux.process_img(x)
    txt_ids = torch.zeros(context.shape[1], 4)
    txt_ids[:, 3] = torch.arange(context.shape[1])
    with torch.inference_mode():
        found = flux(x, times, context, guidance=guidance)
        expected = convert_to_diffusers(flux)(tokens, context, times, img_ids[0], txt_ids, guidance).sample
    expected = expected.transpose(1, 2).reshape(found.shape)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("batch, height, width", SIZES)
def test_forward_is_the_hosts(comfy, batch, height, width, guided):
    from cologen.training.comfyui.enter_host import load_model

    flux = tiny_flux2(guidance_embed=guided)
    theirs = load_model(flux.state_dict(), torch.float32).model.diffusion_model
    x, times, context, _, guidance = flux2_inputs(batch, height, width, guided)
    with torch.inference_mode():
        expected = theirs(x, times, context, None, guidance)
        found = flux(x, times, context, None, guidance)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
@pytest.mark.parametrize("guided", [True, False])
def test_files_load_as_what_their_numbers_say(tmp_path, guided, dtype):
    flux = tiny_flux2(guidance_embed=guided)
    low = {key: value.to(dtype) for key, value in flux.state_dict().items()}
    save_file(low, tmp_path / "flux2.safetensors")
    loaded = load_flux(tmp_path / "flux2.safetensors")
    assert loaded.params == flux.params and {p.dtype for p in loaded.parameters()} == {dtype}
    flux.load_state_dict({key: value.float() for key, value in low.items()})
    args = flux2_inputs(2, guided=guided)
    assert (loaded(*args) - flux(*args)).abs().max() < 1e-4


def test_the_hosts_norm_names_load(comfy, tmp_path):
    from cologen.training.comfyui.enter_host import load_model

    flux = tiny_flux2()
    theirs = load_model(flux.state_dict(), torch.float32).model.diffusion_model
    save_file(dict(theirs.state_dict()), tmp_path / "flux2.safetensors")
    loaded = load_flux(tmp_path / "flux2.safetensors").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in flux.state_dict().items())


def test_half_a_file_is_a_sentence(tmp_path):
    weights = tiny_flux2().state_dict()
    del weights["single_stream_modulation.lin.weight"]
    save_file(weights, tmp_path / "flux2.safetensors")
    with pytest.raises(ValueError, match=r"lacks single_stream_modulation.lin.weight .* expected a whole FLUX.2 file"):
        load_flux(tmp_path / "flux2.safetensors")


@pytest.mark.parametrize("steps, side", [(4, 512), (20, 1024), (50, 1024), (200, 768), (30, 2048)])
def test_timesteps_are_the_hosts_scheduler_s_and_those_of_diffusers(comfy, steps, side):
    from cologen.prw.flux.sampling import make_timesteps
    from comfy_extras.nodes_flux import Flux2Scheduler
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    tokens = (side // 16) ** 2
    assert FLUX2.time_shift(steps, tokens) == pytest.approx(compute_empirical_mu(tokens, steps))
    expected = Flux2Scheduler.execute(steps, side, side).result[0].tolist()
    assert make_timesteps(steps, tokens, FLUX2.time_shift) == pytest.approx(expected, abs=1e-6)
