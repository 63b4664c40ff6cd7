"""A seeded tiny FLUX.2 and what it is asked."""

import torch
from cologen.prw.flux.flux2 import Flux2, Flux2Params
from cologen.prw.flux.inputs import FluxInputs

TEXT_WIDTH = 48


def tiny_flux2(seed=0, **changes) -> Flux2:
    shape = dict(hidden_size=256, num_heads=2, depth=2, depth_single_blocks=3, context_in_dim=TEXT_WIDTH)
    flux, g = Flux2(Flux2Params(**shape | changes)), torch.Generator().manual_seed(seed)
    for name, value in flux.state_dict().items():
        noise = torch.randn(value.shape, generator=g)
        value.copy_(1 + 0.1 * noise if name.endswith("scale") else noise / value.shape[-1] ** 0.5)
    return flux.eval().requires_grad_(False)


def flux2_inputs(batch=1, height=4, width=4, guided=False, tokens=6) -> FluxInputs:
    g = torch.Generator().manual_seed(1)
    x, context = (
        torch.randn(batch, 128, height, width, generator=g),
        torch.randn(batch, tokens, TEXT_WIDTH, generator=g),
    )
    guidance = 3 + torch.rand(batch, generator=g) if guided else None
    return FluxInputs(x, torch.rand(batch, generator=g), context, None, guidance)
