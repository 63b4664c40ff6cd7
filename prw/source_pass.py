"""A source's way through FLUX: from latents to every block's keys and values, on either host.

What differs between ComfyUI's FLUX and our own is in `Host`, what differs between FLUX families in flux/families.py.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .find_experts import find_source_format
from .flux.blocks import FluxModel, call_directly
from .flux.families import find_model_family
from .flux.inputs import FluxInputs, SourceConditions
from .flux.math import rotary
from .positions import Grid, source_ids, token_grid
from .select_experts import ExpertBank
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
        """The type that the blocks compute in."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes; weights that a host has put aside may lie elsewhere."""
        ...

    def tokenize(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Turns a latent into image tokens (batch, tokens, channels) and their position ids."""
        ...

    def scale_latent(self, latent: Tensor) -> Tensor:
        """Brings a VAE's latent to the scale that FLUX was trained on."""
        ...

    def unscale_latent(self, latent: Tensor) -> Tensor:
        """Undoes scale_latent: FLUX's scale to the VAE's."""
        ...

    def make_attention(self, pe: Tensor) -> Attend:
        """Makes the host's attention function, which rotates q and k by the positions `pe`."""
        ...

    def state(self) -> Hashable:
        """Changes when the base's weights, or how it computes, do.

        Watched are the host's ways to change a model (patches, hooks, injections, replaced objects, its attention) and its
        parameters. A hook of torch on a module, or a weight that is written behind the host's back, is not seen: such a
        program must not let K/V be kept.
        """
        ...

    def attention_state(self) -> Hashable:
        """Changes when its attention function does."""
        ...

    def watch(self, blocks: Iterator[BlockKV], count: int) -> Iterator[BlockKV]:
        """Passes on what a long pass yields, `count` in all; shows its progress, and ends it if the user cancels."""
        ...


class ReaderConditions(NamedTuple):
    """What a source's keys and values depend on of the pictures that read it: the batch that is sampled or trained on."""

    grid: Grid
    """The pictures' token grid, the same for all samples."""
    times: Tensor
    """(batch,), the timesteps."""
    pooled: Tensor | None
    """(batch, width), the prompts' pooled embeddings; None where sources do not depend on the prompt."""
    guidance: Tensor | None = None
    """(batch,), the guidance scale; None: the model has no embedding for it."""

    @classmethod
    def of(cls, host: Host, inputs: FluxInputs) -> "ReaderConditions":
        """Gives what a forward of FLUX gives its sources to depend on."""
        x, times, pooled, guidance = inputs.x, inputs.times, inputs.pooled, inputs.guidance
        family, params = find_model_family(host.flux), host.flux.params
        if not family.reads_prompt:
            pooled = None
        elif pooled is None:
            pooled = x.new_zeros(len(x), params.vec_in_dim)
        grid = Grid.of(host.tokenize(x[:1])[1][0], *token_grid(x, host.flux.patch_size))
        is_guided = guidance is not None and family.reads_guidance(params)
        return cls(grid, times, pooled, guidance.to(times).expand(len(x)) if is_guided else None)


class SourcePicture(NamedTuple):
    """One picture of a source's pass."""

    latent: Tensor
    """(batch, channels, height, width), on FLUX's scale."""
    number: int = 1
    """Which reference it is, from 1."""


def make_source_ids(
    flux: FluxModel, pictures: Sequence[SourcePicture], target: Grid, position: str, shift: tuple[float, float]
) -> Tensor:
    """Makes the positions (1, tokens, axes) of pictures that see one another, one behind the other."""
    step, axes = find_model_family(flux).reference_step, len(flux.params.axes_dim)
    grids = [token_grid(picture.latent, flux.patch_size) for picture in pictures]
    ids = [
        source_ids(*grid, target, position, shift, axes, step * picture.number)
        for grid, picture in zip(grids, pictures)
    ]
    return torch.cat(ids, dim=1)


def find_position(host: Host, bank: ExpertBank, routing: Routing) -> str:
    """Finds where a source lies, a row of POSITION: as its user says, else its expert, the bank,
    the family or the task."""
    trained = find_source_format(bank.info, routing).position or bank.info.source.position
    return routing.choose_position(trained or find_model_family(host.flux).position)


def run_source_pass(
    host: Host,
    bank: ExpertBank,
    routing: Routing,
    select: Selector,
    pictures: Sequence[SourcePicture],
    readers: ReaderConditions,
    run: RunBlock = call_directly,
) -> tuple[Iterator[BlockKV], Tensor]:
    """Gives the source stream of pictures that see one another (one, as a rule), block by block, and its rotary
    positions.

    A source has its readers' times and guidance only where the bank or an expert's format asks for it.
    """
    flux, family = host.flux, find_model_family(host.flux)
    info, source_format = bank.info.source, find_source_format(bank.info, routing)
    ids = make_source_ids(flux, pictures, readers.grid, find_position(host, bank, routing), routing.shift)
    pe = rotary(ids.expand(len(readers.times), -1, -1), flux.params.axes_dim, flux.params.theta).to(
        readers.times.device
    )
    times = readers.times if info.follows_time else torch.zeros_like(readers.times)
    guidance = readers.guidance if source_format.guidance else torch.full_like(times, info.guidance)
    h = flux.img_in(torch.cat([host.tokenize(picture.latent)[0] for picture in pictures], dim=1))
    conditions = SourceConditions(times, readers.pooled, guidance)
    modulation = family.modulate_source(flux, conditions, host.dtype)
    return run_source_stream(flux, h, modulation, host.make_attention(pe), select, run), pe
