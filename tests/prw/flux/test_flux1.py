"""Our FLUX is the host's FLUX, and the naive formula's."""

import pytest
import torch
from naive import Naive
from tiny import host_model, inputs, tiny_flux

SIZES = [(1, 8, 8), (2, 7, 10), (3, 9, 5)]


@pytest.mark.parametrize("batch, height, width", SIZES)
def test_plain_forward_is_the_naive_formula(batch, height, width):
    flux = tiny_flux()
    x, t, context, pooled, guidance = inputs(batch, height, width)
    found = flux(x, t, context, pooled, guidance)
    assert (found - Naive(flux.state_dict())(x, t, context, pooled, guidance)).abs().max() < 1e-4


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("batch, height, width", SIZES)
def test_plain_forward_is_the_hosts(comfy, batch, height, width, guided):
    flux = tiny_flux(guidance_embed=guided)
    theirs = host_model(flux).model.diffusion_model
    x, t, context, pooled, guidance = inputs(batch, height, width)
    with torch.inference_mode():
        expected = theirs(x, t, context, pooled, guidance)
        found = flux(x, t, context, pooled, guidance)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()  # some processors add up in another order


def test_bf16_is_the_hosts_within_rounding(comfy):
    flux = tiny_flux()
    half, theirs = tiny_flux(torch.bfloat16), host_model(flux, torch.bfloat16).model.diffusion_model
    args = inputs(2, dtype=torch.bfloat16)
    with torch.inference_mode():
        exact, found, expected = flux(*inputs(2)), half(*args).float(), theirs(*args).float()
    rounding = (expected - exact).abs().mean()
    assert (found - expected).abs().mean() < 1.5 * rounding
    assert (found - exact).abs().mean() < 1.5 * rounding


def test_the_euler_sampler_is_the_hosts(comfy):
    from cologen.prw.embedded_host import velocity
    from cologen.prw.flux.flux1 import LATENT_SCALE, LATENT_SHIFT
    from cologen.prw.flux.sampling import make_timesteps, sample_euler
    from sampling import conditioning, sample

    flux = tiny_flux()
    times = make_timesteps(4, tokens=4096)
    expected = sample(host_model(flux), conditioning(), sigmas=torch.tensor(times))
    noise = comfy.sample.prepare_noise(torch.zeros(1, 16, 8, 8), 7)
    text, options = conditioning()[0]

    def predict(x, timestep, progress):
        return velocity(flux, x, timestep, text, options["pooled_output"], torch.tensor([3.5]))

    found = sample_euler(predict, noise, times) / LATENT_SCALE + LATENT_SHIFT
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_the_shift_at_full_size_is_the_hosts(comfy):
    from cologen.prw.flux.sampling import make_timesteps
    from comfy.model_sampling import flux_time_shift

    expected = [flux_time_shift(1.15, 1.0, t) if t else 0.0 for t in (1.0, 0.75, 0.5, 0.25, 0.0)]
    assert make_timesteps(4, tokens=4096) == pytest.approx(expected)
    assert make_timesteps(4, tokens=None) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert make_timesteps(2, tokens=256)[1] == pytest.approx(torch.sigmoid(torch.tensor(0.5)).item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("batch, height, width", SIZES)
def test_woven_forward_is_the_hosts(comfy, batch, height, width, guided, dtype):
    """The same PRW object on both: the host's FLUX gets what ours appends."""
    from cologen.prw.appended_kv import OPTION
    from cologen.prw.attachment import Attachment
    from cologen.prw.embedded_host import EmbeddedHost, velocity
    from cologen.prw.flux.inputs import FluxInputs
    from tiny import source, tiny_bank

    flux = tiny_flux(dtype, guidance_embed=guided)
    theirs = host_model(tiny_flux(guidance_embed=guided), dtype).model.diffusion_model
    attachment = Attachment(tiny_bank(flux))
    x, t, context, pooled, guidance = inputs(batch, height, width, dtype=dtype)
    one = source(height=height, width=width)
    with torch.inference_mode():
        found = velocity(flux, x, t, context, pooled, guidance, attachment, [one]).float()
        options = {
            OPTION: attachment.prepare(EmbeddedHost(flux, dtype), [one], FluxInputs(x, t, context, pooled)),
            "patches": {"attn1_patch": [attachment]},
        }
        expected = theirs(x, t, context, pooled, guidance, transformer_options=options).float()
    size = expected.abs().max()
    assert (found - expected).abs().max() < (1e-5 if dtype == torch.float32 else 0.05) * size
