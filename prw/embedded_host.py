"""PRW on our own FLUX: no ComfyUI on the machine."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .appended_kv import OPTION
from .attachment import Attachment
from .files.tensor_versions import read_versions
from .flux.families import Flux, find_model_family
from .flux.inputs import FluxInputs
from .flux.math import attention
from .source import Reading
from .weaving import Attend, BlockKV


class EmbeddedHost:
    """The `Host` of source_pass.py for our own FLUX."""

    def __init__(self, flux: Flux, dtype: torch.dtype):
        self.flux, self.dtype, self.family = flux, dtype, find_model_family(flux)

    @property
    def device(self) -> torch.device:
        return next(self.flux.parameters()).device

    def tokenize(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        return self.flux.process_img(latent)

    def scale_latent(self, latent: Tensor) -> Tensor:
        return (latent - self.family.latent_shift) * self.family.latent_scale

    def unscale_latent(self, latent: Tensor) -> Tensor:
        return latent / self.family.latent_scale + self.family.latent_shift

    def make_attention(self, pe: Tensor) -> Attend:
        return partial(attention, pe=pe)

    def state(self) -> Any:
        return read_versions(self.flux.parameters()), repr(self.flux.params)

    def attention_state(self) -> None:
        return None

    def watch(self, blocks: Iterator[BlockKV], count: int) -> Iterator[BlockKV]:
        return blocks


def velocity(  # programs call it: its signature is permanent
    flux: Flux,
    x: Tensor,
    timestep: Tensor,
    context: Tensor,
    pooled: Tensor | None,
    guidance: Tensor | None = None,
    attachment: Attachment | None = None,
    sources: Sequence[Reading] = (),
    progress: float = 0.0,
) -> Tensor:
    """Predicts the velocity at noisy latents x, with sources read through an attachment.

    `progress`, 0 at the first sampler step and towards 1 at the last, decides which sources are on.
    """
    # more than seven parameters: the public entry, called as FLUX itself is
    options: dict[str, Any] = {}
    sources = [source for source in sources if source.is_on(progress)]
    if attachment is not None and sources:
        inputs = FluxInputs(x, timestep, context, pooled, guidance)
        options = {
            OPTION: attachment.prepare(EmbeddedHost(flux, x.dtype), sources, inputs),
            "patches": {"attn1_patch": [attachment]},
        }
    return flux(x, timestep, context, pooled, guidance, transformer_options=options)
