"""Our FLUX.2 is diffusers' and the host's."""

import pytest
import torch
from cologen.prw.flux.flux2 import Flux2, Flux2Params
from diffusers import Flux2Transformer2DModel
from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers

SIZES = [(1, 4, 4), (2, 3, 5), (3, 1, 7)]
TINY2 = dict(hidden_size=256, num_heads=2, depth=2, depth_single_blocks=3, context_in_dim=48)


def tiny_flux2(seed=0, **changes):
    flux, g = Flux2(Flux2Params(**TINY2 | changes)), torch.Generator().manual_seed(seed)
    for name, value in flux.state_dict().items():
        noise = torch.randn(value.shape, generator=g)
        value.copy_(1 + 0.1 * noise if name.endswith("scale") else noise / value.shape[-1] ** 0.5)
    return flux.eval().requires_grad_(False)


def asked(batch, height, width, guided, tokens=6):
    g = torch.Generator().manual_seed(1)
    x, context = torch.randn(batch, 128, height, width, generator=g), torch.randn(batch, tokens, 48, generator=g)
    return x, torch.rand(batch, generator=g), context, 3 + torch.rand(batch, generator=g) if guided else None


def in_diffusers(flux):
    """The same weights in diffusers' model, by diffusers' own converter of single files."""
    params = flux.params
    model = Flux2Transformer2DModel(
        num_layers=params.depth,
        num_single_layers=params.depth_single_blocks,
        num_attention_heads=params.num_heads,
        joint_attention_dim=params.context_in_dim,
        guidance_embeds=params.guidance_embed,
    )
    model.load_state_dict(convert_flux2_transformer_checkpoint_to_diffusers(dict(flux.state_dict())))
    return model.eval()


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("batch, height, width", SIZES)
def test_forward_is_diffusers(batch, height, width, guided):
    flux = tiny_flux2(guidance_embed=guided)
    x, times, context, guidance = asked(batch, height, width, guided)
    tokens, img_ids = flux.process_img(x)
    txt_ids = torch.zeros(context.shape[1], 4)
    txt_ids[:, 3] = torch.arange(context.shape[1])
    with torch.inference_mode():
        found = flux(x, times, context, guidance=guidance)
        expected = in_diffusers(flux)(tokens, context, times, img_ids[0], txt_ids, guidance).sample
    expected = expected.transpose(1, 2).reshape(found.shape)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("batch, height, width", SIZES)
def test_forward_is_the_hosts(comfy, batch, height, width, guided):
    from cologen.training.comfyui.find_host import load_model

    flux = tiny_flux2(guidance_embed=guided)
    theirs = load_model(flux.state_dict(), torch.float32).model.diffusion_model
    x, times, context, guidance = asked(batch, height, width, guided)
    with torch.inference_mode():
        expected = theirs(x, times, context, None, guidance)
        found = flux(x, times, context, None, guidance)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
