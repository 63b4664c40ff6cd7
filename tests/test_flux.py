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
    assert (found - expected).abs().max() < 1e-5
