"""A source's way through FLUX: from latents to every block's keys and values, on either host.

What differs between ComfyUI's FLUX and our own is in `Host`, what differs between FLUX families in flux/families.py.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .flux.blocks import FluxModel, call_directly
from .flux.families import find_model_family
from .flux.inputs import SourceConditions
from .flux.math import rotary
from .positions import Grid, source_ids, token_grid
from .select_experts import ExpertBank, find_source_format
from .source import Routing
from .weaving import Attend, BlockKV, RunBlock, Selector, run_source_stream


class Host(Protocol):
    """What the method asks of the program that owns the FLUX."""

    @property
    def flux(self) -> FluxModel:
        """The host's model."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes; weights that a host has put aside may lie elsewhere."""
        ...

    def tokenize(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to image tokens and their ids."""
        ...

    def scale_latent(self, latent: Tensor) -> Tensor:
        """VAE latent to the scale that FLUX was trained on."""
        ...

    def unscale_latent(self, latent: Tensor) -> Tensor:
        """And back."""
        ...

    def make_attention(self, pe: Tensor) -> Attend:
        """The host's attention with the given positions."""
        ...

    def state(self) -> Hashable:
        """Changes when the base's weights, or how it computes, do."""
        ...


class Target(NamedTuple):
    """What a source's keys and values depend on of the pictures that read it, sample by sample."""

    grid: Grid
    """Where their tokens lie."""
    times: Tensor
    pooled: Tensor | None
    """None where sources do not depend on the prompt."""
    guidance: Tensor | None = None
    """Of the pictures' own tokens; None: the model has no embedding for it."""


class SourcePicture(NamedTuple):
    """One picture of a source's pass."""

    latent: Tensor
    """(batch, channels, height, width), on FLUX's scale."""
    number: int = 1
    """Which reference it is, from 1."""


def run_source_pass(
    host: Host,
    bank: ExpertBank,
    routing: Routing,
    select: Selector,
    pictures: Sequence[SourcePicture],
    target: Target,
    run: RunBlock = call_directly,
) -> tuple[Iterator[BlockKV], Tensor]:
    """The source stream of pictures that see one another (one, as a rule), block by block, and its rotary positions.

    A source has the target's times and guidance only where the bank or an expert's format asks for it.
    """
    flux, family = host.flux, find_model_family(host.flux)
    info, source_format = bank.info.source, find_source_format(bank.info, routing)
    axes, position = (
        flux.params.axes_dim,
        routing.choose_position(source_format.position or info.position or family.position),
    )

    def place(picture: SourcePicture) -> Tensor:
        size, first = token_grid(picture.latent, flux.patch_size), family.reference_step * picture.number
        return source_ids(*size, target.grid, position, routing.shift, len(axes), first)

    ids = torch.cat([place(picture) for picture in pictures], dim=1).expand(len(target.times), -1, -1)
    pe = rotary(ids, axes, flux.params.theta).to(target.times.device)
    times = target.times if info.time == "shared" else torch.zeros_like(target.times)
    guidance = target.guidance if source_format.guidance else torch.full_like(times, info.guidance)
    h = flux.img_in(torch.cat([host.tokenize(picture.latent)[0] for picture in pictures], dim=1))
    conditions = SourceConditions(times, target.pooled, guidance)
    modulation = family.modulate_source(flux, conditions, host.dtype)
    return run_source_stream(flux, h, modulation, host.make_attention(pe), select, run), pe
