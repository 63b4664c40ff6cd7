"""PRW on our own FLUX: no ComfyUI on the machine."""

from collections.abc import Hashable, Sequence
from functools import partial

import torch
from torch import Tensor

from .attachment import OPTION, Attachment
from .bank import versions
from .flux import Flux
from .flux_math import attention
from .source import Source
from .weaving import Attend

LATENT_SCALE, LATENT_SHIFT = 0.3611, 0.1159
"""FLUX's VAE latents are shifted and scaled to about unit size."""


class EmbeddedHost:
    def __init__(self, flux: Flux, dtype: torch.dtype):
        self.flux, self.dtype = flux, dtype

    def tokens(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        return self.flux.process_img(latent)

    def latent_in(self, latent: Tensor) -> Tensor:
        return (latent - LATENT_SHIFT) * LATENT_SCALE

    def attend(self, pe: Tensor) -> Attend:
        return partial(attention, pe=pe)

    def state(self) -> Hashable:
        return versions(self.flux.parameters())


def velocity(
    flux: Flux,
    x: Tensor,
    timestep: Tensor,
    context: Tensor,
    pooled: Tensor,
    guidance: Tensor | None = None,
    attachment: Attachment | None = None,
    sources: Sequence[Source] = (),
) -> Tensor:
    """What FLUX predicts for noisy latents x, with sources read through an attachment."""
    options = {}
    sources = [source for source in sources if source.strength > 0]
    if attachment is not None and sources:
        appendix = attachment.prepare(EmbeddedHost(flux, x.dtype), sources, x, timestep, pooled)
        options = {OPTION: appendix, "patches": {"attn1_patch": [attachment]}}
    return flux(x, timestep, context, pooled, guidance, transformer_options=options)
