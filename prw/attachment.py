"""A bank at work on a FLUX: sources become keys and values once, and every block gets them appended.

The same object serves both hosts. What differs between ComfyUI's FLUX and our own is in `Host`.
"""

import logging
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .appended_kv import AppendedKV, CachedSourceKV, append_sources_patch
from .base_model import Base
from .files.errors import BankError
from .flux.blocks import FluxModel, call_directly
from .flux.families import find_model_family
from .flux.inputs import FluxInputs, SourceConditions
from .flux.math import rotary
from .kv_cache import KVCache, SampleKV, split_samples
from .positions import Grid, source_ids, token_grid
from .select_experts import ExpertBank, find_source_format, make_selector
from .source import Routing, Source, fill_channels, hash_tensor
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

    def tokens(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to image tokens and their ids."""
        ...

    def latent_in(self, latent: Tensor) -> Tensor:
        """VAE latent to the scale that FLUX was trained on."""
        ...

    def latent_out(self, latent: Tensor) -> Tensor:
        """And back."""
        ...

    def attend(self, pe: Tensor) -> Attend:
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
    """What the picture's own tokens are told; None: nothing."""


class Batch(NamedTuple):
    """One forward of FLUX."""

    target: Target
    pictures: int
    """Samples in each cond's share of the batch."""
    channels: int
    """Of the latents that img_in takes: 16, more for Fill and control models."""
    device: torch.device

    def select_image(self, source: Source, sample: int) -> int:
        """Which of the source's images a sample uses: they repeat as the host repeats conditions."""
        return sample % self.pictures % len(source.latent)


class Attachment:
    """Holds a bank, and for the length of a sampling run the K/V of its sources."""

    def __init__(self, bank: ExpertBank, cached: bool = True):
        self.bank = bank
        self.cached = cached
        """False recomputes the source at every step: same result, for tests and benchmarks."""
        self.cache = KVCache()
        self._compared_weights = False
        self._warned: set[str] = set()

    def prepare(
        self, host: Host, sources: Sequence[Source], inputs: FluxInputs, chunks: int = 1, channels: int = 0
    ) -> AppendedKV:
        """K/V of all sources for a forward of FLUX; `chunks` conds of equal size share the batch.

        `channels` counts those of img_in where x lacks some (0: x has them all).
        """
        self.check(host)
        x, times, pooled, guidance = inputs.x, inputs.times, inputs.pooled, inputs.guidance
        if not find_model_family(host.flux).reads_prompt:
            pooled = None
        elif pooled is None:
            pooled = x.new_zeros(len(x), host.flux.params.vec_in_dim)
        grid = Grid.of(host.tokens(x[:1])[1][0], *token_grid(x, host.flux.patch_size))
        is_guided = guidance is not None and host.flux.params.guidance_embed
        guidance = guidance.to(times).expand(len(x)) if is_guided else None
        target = Target(grid, times, pooled, guidance)
        batch = Batch(target, len(x) // chunks, channels or x.shape[1], x.device)
        return AppendedKV([self._prepare_source(host, source, batch) for source in sources], grid)

    def check(self, host: Host) -> None:
        """Refuses a base of another shape, and says once if it looks like another training."""
        base = Base.of(host.flux)
        if refusal := self.bank.info.base.refusal(base):
            raise ValueError(refusal)
        if not self._compared_weights:
            self._compared_weights = True
            if self.bank.info.base.probe:
                base = base.with_probe(host.flux)
            if doubt := self.bank.info.base.doubt(base):
                logging.getLogger(__name__).warning(doubt)

    def _prepare_source(self, host: Host, source: Source, batch: Batch) -> CachedSourceKV:
        """Finds or makes one source's K/V for every sample of the batch."""
        keys, state = self._cache_keys(host, source, batch), (batch.target.grid, host.state(), self.bank.state())

        def restore(sample: SampleKV) -> SampleKV:
            return sample if source.placement == "cpu" else sample.move(lambda x: x.to(batch.device))

        samples: dict[Hashable, SampleKV] = {}
        missing: dict[Hashable, int] = {}
        for i, key in enumerate(keys):
            sample = samples.get(key) or self.cache.find(key, state, restore if source.keep else None)
            if sample is None:
                missing[key] = i
            else:
                samples[key] = sample
        if missing:
            for key, sample in zip(missing, self._weave(host, source, batch, list(missing.values())), strict=True):
                samples[key] = sample
                if self.cached and not self._follows_time():
                    self.cache.add(key, state, sample, source.keep)
        return CachedSourceKV(source, [samples[key] for key in keys])

    def _follows_time(self) -> bool:
        """Banks of the shared timestep: every step has K/V of its own, nothing is worth caching."""
        return self.bank.info.source.time == "shared"

    def _cache_keys(self, host: Host, source: Source, batch: Batch) -> list[Hashable]:
        """Which picture, prompt and size each sample's K/V belong to."""
        grid, times, pooled, guidance = batch.target
        size = (grid.rows, grid.columns, batch.channels, str(batch.device), host.dtype)
        unused = [None] * len(times)
        time_keys = times.tolist() if self._follows_time() else unused
        is_live = find_source_format(self.bank.info, source.routing).guidance == "live"
        guidance_keys = unused if guidance is None or not is_live else guidance.tolist()
        prompt_keys = unused if pooled is None else map(hash_tensor, pooled)
        conditions = enumerate(zip(prompt_keys, time_keys, guidance_keys, strict=True))
        common = (source.digest, source.placement, size)
        return [(common, batch.select_image(source, i), *condition) for i, condition in conditions]

    def _weave(self, host: Host, source: Source, batch: Batch, samples: list[int]) -> list[SampleKV]:
        """Runs the source stream for some samples of the batch."""
        grid, times, pooled, guidance = batch.target
        latent = source.latent[[batch.select_image(source, i) for i in samples]]
        latent = fill_channels(host.latent_in(latent), batch.channels).to(batch.device, host.dtype)
        pooled, guidance = (None if part is None else part[samples] for part in (pooled, guidance))
        target = Target(grid, times[samples], pooled, guidance)
        self._warn_unusual(source)
        stream, pe = run_source_pass(
            host, self.bank, source.routing, self.make_selector(source.routing), latent, target, source.number
        )
        return split_samples(_check_finite(stream), pe, source.placement)

    def _warn_unusual(self, source: Source) -> None:
        """Says once what an imported expert was not trained on."""
        mismatch = find_source_format(self.bank.info, source.routing).describe_mismatch(source.latent)
        if mismatch and mismatch not in self._warned:
            self._warned.add(mismatch)
            logging.getLogger(__name__).warning(mismatch)

    def make_selector(self, routing: Routing) -> Selector:
        """What chooses the experts of each block."""
        return make_selector(self.bank, routing)

    def __call__(self, *args, **kwargs) -> dict:
        """The `attn1_patch` that appends what `prepare` made."""
        return append_sources_patch(*args, **kwargs)

    def cleanup(self) -> None:
        """Ends a sampling run."""
        self.cache.end_run()


def run_source_pass(
    host: Host,
    bank: ExpertBank,
    routing: Routing,
    select: Selector,
    latent: Tensor,
    target: Target,
    number: int = 1,
    run: RunBlock = call_directly,
) -> tuple[Iterator[BlockKV], Tensor]:
    """The source stream of latents (on FLUX's scale), block by block, and its rotary positions.

    A source has the target's times and guidance only where the bank or an expert's format asks for it.
    """
    flux, family = host.flux, find_model_family(host.flux)
    info, source_format = bank.info.source, find_source_format(bank.info, routing)
    size, axes = token_grid(latent, flux.patch_size), flux.params.axes_dim
    position = routing.choose_position(source_format.position or info.position or family.position)
    ids = source_ids(*size, target.grid, position, routing.shift, len(axes), family.reference_step * number)
    pe = rotary(ids.expand(len(latent), -1, -1), axes, flux.params.theta).to(latent.device)
    times = target.times if info.time == "shared" else torch.zeros_like(target.times)
    guidance = target.guidance if source_format.guidance else torch.full_like(times, info.guidance)
    h = flux.img_in(host.tokens(latent)[0])
    conditions = SourceConditions(times, target.pooled, guidance)
    modulation = family.modulate_source(flux, conditions, host.dtype)
    return run_source_stream(flux, h, modulation, host.attend(pe), select, run), pe


def _check_finite(stream: Iterator[BlockKV]) -> Iterator[BlockKV]:
    """Passes a source stream on; what went wrong in any block shows in the last one's values."""
    kv = None
    for kv in stream:
        yield kv
    if kv is not None and not torch.isfinite(kv.v).all():
        raise BankError(
            "The source's values are not finite, expected numbers: check the bank with cologen bank verify, "
            "or load FLUX in bf16 instead of fp16."
        )
