"""Training on Fill and control models gives their extra channels as the host does where nothing is connected for them."""

import pytest
import torch
from cologen.prw.comfyui.conditioning import add_source
from cologen.prw.embedded_host import EmbeddedHost
from cologen.prw.flux.inputs import EncodedPrompt
from cologen.prw.source import Routing
from cologen.training.given_channels import add_given_channels
from cologen.training.sampling import SamplingSettings, sample_latents
from sampling import SIGMAS, apply_bank, conditioning, sample
from tiny import host_model, latent, source, tiny_bank, tiny_flux
from tiny_run import REAL_HEADS, gradients, tiny_host, tiny_trainer

pytestmark = pytest.mark.usefixtures("comfy")
KINDS = pytest.mark.parametrize("channels", [384, 128], ids=["fill", "control"])


def of_host(model, x):
    return torch.cat([x, model.model.concat_cond(noise=x, device=x.device)], 1)


@KINDS
def test_channels_are_those_of_the_host(channels):
    flux = tiny_flux(in_channels=channels, out_channels=64)
    x = latent(batch=2, height=4, width=6)
    found = add_given_channels(EmbeddedHost(flux, torch.float32), x)
    assert found.shape[1] == channels // 4 and torch.equal(found, of_host(host_model(flux), x))
    plain = add_given_channels(EmbeddedHost(tiny_flux(), torch.float32), x)
    assert torch.equal(plain, x)


@KINDS
def test_an_iteration_asks_flux_what_the_host_would_ask_it(channels):
    host, asked = tiny_host(dict(REAL_HEADS, in_channels=channels, out_channels=64)), []
    host.flux.register_forward_pre_hook(lambda _, args: asked.append(args[0].detach()))
    found, result = gradients(tiny_trainer(host))
    model = host_model(host.flux)
    assert asked and all(torch.equal(x, of_host(model, x[:, :16])) for x in asked)
    assert all(torch.isfinite(gradient).all() for gradient in found.values()) and result.task_loss > 0
    assert all(gradient.any() for name, gradient in found.items() if ".up" in name)


@KINDS
def test_training_s_forward_is_the_one_that_the_nodes_run(channels):
    flux = tiny_flux(in_channels=channels, out_channels=64)
    bank, given = tiny_bank(flux), source()
    expected = sample(
        apply_bank(host_model(flux), bank), add_source(conditioning(), given), sigmas=torch.tensor(SIGMAS)
    )
    import comfy.sample

    noise = comfy.sample.prepare_noise(torch.zeros(1, 16, 8, 8), 7)
    (text, rest), settings = conditioning()[0], SamplingSettings(SIGMAS, guidance=3.5)
    prompt, routing = EncodedPrompt(text, rest["pooled_output"]), Routing(task="control")
    host = EmbeddedHost(flux, torch.float32)
    found = sample_latents(host, bank, routing, given.latent, noise, prompt, settings)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
