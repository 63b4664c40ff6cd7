"""A bank at work on a FLUX: sources become keys and values once, and every block gets them appended.

The same object serves both hosts. What differs between ComfyUI's FLUX and our own is in `Host`.
"""

import logging
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .appended_kv import Appendix, Part, append_here
from .bank.bank import Bank
from .base_model import Base
from .files.errors import BankError
from .flux.blocks import straight
from .flux.math import rotary, timestep_embedding
from .kv_cache import KVCache, Row, rows_of
from .positions import Grid, source_ids, token_grid
from .select_experts import habits_of, picker
from .source import Routing, Source, fill_channels, hash_of
from .weaving import Attend, BlockKV, Pick, Run, source_stream


class Host(Protocol):
    """What the method asks of the program that owns the FLUX."""

    flux: nn.Module
    dtype: torch.dtype

    def tokens(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to image tokens and their ids."""

    def latent_in(self, latent: Tensor) -> Tensor:
        """VAE latent to the scale that FLUX was trained on."""

    def latent_out(self, latent: Tensor) -> Tensor:
        """And back."""

    def attend(self, pe: Tensor) -> Attend:
        """The host's attention with the given positions."""

    def state(self) -> Hashable:
        """Changes when the base's weights, or how it computes, do."""


class Batch(NamedTuple):
    """What a forward of FLUX brings: the target's grid and, sample by sample, time and pooled text."""

    grid: Grid
    times: Tensor
    pooled: Tensor
    device: torch.device
    pictures: int
    """Samples in each cond's share of the batch."""
    channels: int
    """Of the latents that img_in takes: 16, more for Fill and control models."""
    guidance: Tensor | None = None
    """What the picture's own tokens are told, sample by sample; None: nothing."""

    def image(self, source: Source, sample: int) -> int:
        """Which of the source's images a sample uses: they repeat as the host repeats conditions."""
        return sample % self.pictures % len(source.latent)


class Attachment:
    """Holds a bank, and for the length of a sampling run the K/V of its sources."""

    def __init__(self, bank: Bank, cached: bool = True):
        self.bank = bank
        self.cached = cached
        """False recomputes the source at every step: same result, for tests and benchmarks."""
        self.cache = KVCache()
        self._doubted = False
        self._surprised: set[str] = set()

    def prepare(
        self,
        host: Host,
        sources: Sequence[Source],
        x: Tensor,
        timestep: Tensor,
        pooled: Tensor | None,
        chunks: int = 1,
        channels: int = 0,
        guidance: Tensor | None = None,
    ) -> Appendix:
        """K/V of all sources for a forward on latents x; `chunks` conds of equal size share the batch.

        `channels` counts those of img_in where x lacks some (0: x has them all).
        """
        self.check(host)
        if pooled is None:
            pooled = x.new_zeros(len(x), host.flux.params.vec_in_dim)
        grid = Grid.of(host.tokens(x[:1])[1][0], *token_grid(x, host.flux.patch_size))
        guidance = None if guidance is None else guidance.to(timestep).expand(len(x))
        batch = Batch(grid, timestep, pooled, x.device, len(x) // chunks, channels or x.shape[1], guidance)
        return Appendix([self._part(host, source, batch) for source in sources], grid)

    def check(self, host: Host) -> None:
        """Refuses a base of another shape, and says once if it looks like another training."""
        found = Base.of(host.flux)
        if refusal := self.bank.info.base.refusal(found):
            raise ValueError(refusal)
        if not self._doubted:
            self._doubted = True
            if self.bank.info.base.probe:
                found = found.probed(host.flux)
            if doubt := self.bank.info.base.doubt(found):
                logging.getLogger(__name__).warning(doubt)

    def _part(self, host: Host, source: Source, batch: Batch) -> Part:
        """Finds or makes one source's row for every sample of the batch."""
        slots, depends = self._slots(host, source, batch), (batch.grid, host.state(), self.bank.state())

        def place(row: Row) -> Row:
            return row if source.placement == "cpu" else row.moved(lambda x: x.to(batch.device))

        rows = {slot: self.cache.find(slot, depends, place if source.keep else None) for slot in slots}
        missing = {slot: i for i, slot in enumerate(slots) if rows[slot] is None}
        if missing:
            made = self._weave(host, source, batch, list(missing.values()))
            for slot, row in zip(missing, made, strict=True):
                rows[slot] = row
                if self.cached and not self._follows_time():
                    self.cache.add(slot, depends, row, source.keep)
        return Part(source, [rows[slot] for slot in slots])

    def _follows_time(self) -> bool:
        """Banks of the shared timestep: every step has K/V of its own, nothing is worth caching."""
        return self.bank.info.source.time == "shared"

    def _slots(self, host: Host, source: Source, batch: Batch) -> list[Hashable]:
        """Which picture, prompt and size each sample's row belongs to."""
        size = (batch.grid.rows, batch.grid.columns, batch.channels, str(batch.device), host.dtype)
        times = batch.times.tolist() if self._follows_time() else [0.0] * len(batch.pooled)
        live = habits_of(self.bank, source.routing).guidance and batch.guidance is not None
        told = batch.guidance.tolist() if live else [None] * len(batch.pooled)
        samples = enumerate(zip(map(hash_of, batch.pooled), times, told, strict=True))
        common = (source.digest, source.placement, size)
        return [(common, batch.image(source, i), *depends) for i, depends in samples]

    def _weave(self, host: Host, source: Source, batch: Batch, picks: list[int]) -> list[Row]:
        """Runs the source stream for some samples of the batch."""
        latent = source.latent[[batch.image(source, i) for i in picks]]
        latent = fill_channels(host.latent_in(latent), batch.channels).to(batch.device, host.dtype)
        times, pooled = batch.times[picks], batch.pooled[picks]
        guidance = None if batch.guidance is None else batch.guidance[picks]
        self._wonder(source)
        stream, pe = source_pass(
            host, self.bank, source.routing, self.pick(source.routing), latent, batch.grid, times, pooled, guidance
        )
        return rows_of(_finite(stream), pe, source.placement)

    def _wonder(self, source: Source) -> None:
        """Says once what an imported expert was not trained on."""
        strange = habits_of(self.bank, source.routing).strange(source.latent)
        if strange and strange not in self._surprised:
            self._surprised.add(strange)
            logging.getLogger(__name__).warning(strange)

    def pick(self, routing: Routing) -> Pick:
        return picker(self.bank, routing)

    def __call__(self, *args, **kwargs) -> dict:
        return append_here(*args, **kwargs)

    def cleanup(self) -> None:
        """The end of a sampling run."""
        self.cache.end_run()


def source_pass(
    host: Host,
    bank: Bank,
    routing: Routing,
    pick: Pick,
    latent: Tensor,
    grid: Grid,
    times: Tensor,
    pooled: Tensor,
    guidance: Tensor | None = None,
    run: Run = straight,
) -> tuple[Iterator[BlockKV], Tensor]:
    """The source stream of latents (on FLUX's scale) beside a target's grid, and its rotary positions.

    `times` and `guidance` are the target's: a source has them only where the bank or an expert's habits ask for it.
    """
    flux, info, habits = host.flux, bank.info.source, habits_of(bank, routing)
    size, axes = token_grid(latent, flux.patch_size), flux.params.axes_dim
    ids = source_ids(*size, grid, routing.place(habits.position), routing.shift, len(axes))
    pe = rotary(ids.expand(len(latent), -1, -1), axes, flux.params.theta).to(latent.device)
    times = times if info.time == "shared" else torch.zeros_like(times)
    guidance = guidance if habits.guidance else torch.full_like(times, info.guidance)
    h = flux.img_in(host.tokens(latent)[0])
    return source_stream(flux, h, source_vec(host, times, pooled, guidance), host.attend(pe), pick, run), pe


def source_vec(host: Host, times: Tensor, pooled: Tensor, guidance: Tensor | None) -> Tensor:
    """The source's modulation: a clean picture's (time 0) with the prompt's pooled vector, constant over the steps."""
    flux = host.flux
    pooled = pooled[:, : flux.params.vec_in_dim].to(times.device, host.dtype)
    vec = flux.time_in(timestep_embedding(times).to(host.dtype)) + flux.vector_in(pooled)
    if flux.params.guidance_embed and guidance is not None:
        vec = vec + flux.guidance_in(timestep_embedding(guidance).to(host.dtype))
    return vec


def _finite(stream: Iterator[BlockKV]) -> Iterator[BlockKV]:
    """Passes a source stream on; what went wrong in any block shows in the last one's values."""
    kv = None
    for kv in stream:
        yield kv
    if kv is not None and not torch.isfinite(kv.v).all():
        raise BankError(
            "The source's values are not finite, expected numbers: check the bank with cologen bank verify, "
            "or load FLUX in bf16 instead of fp16."
        )
