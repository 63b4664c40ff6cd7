"""A bank at work on a FLUX: sources become keys and values once, and every block gets them appended.

The same object serves both hosts; a source's way through FLUX is in source_pass.py.
"""

import logging
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import torch

from .appended_kv import AppendedKV, CachedSourceKV, append_sources_patch
from .base_model import Base
from .files.errors import BankError
from .flux.families import check_latent_channels, find_model_family
from .flux.inputs import FluxInputs
from .kv_cache import KVCache, SampleKV, split_kv_by_sample
from .positions import token_grid
from .select_experts import ExpertBank, find_source_format, make_selector
from .source import Routing, Source, fill_channels, hash_tensor
from .source_pass import Host, ReaderConditions, SourcePicture, run_source_pass
from .weaving import BlockKV, Selector


class ForwardBatch(NamedTuple):
    """What the K/V of one forward depend on besides their sources."""

    readers: ReaderConditions
    pictures: int
    """Samples of each cond in the batch."""
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
        x, family = inputs.x, find_model_family(host.flux)
        for source in sources:
            check_latent_channels(source.latent, family)
        readers = ReaderConditions.of(host, inputs)
        batch = ForwardBatch(readers, len(x) // chunks, channels or x.shape[1], x.device)
        groups = (self._prepare_group(host, group, batch) for group in self._group(sources))
        return AppendedKV([kv for group in groups for kv in group], readers.grid)

    def _group(self, sources: Sequence[Source]) -> list[list[Source]]:
        """Sources by who sees whom: with experts each is alone."""
        groups: dict[Hashable, list[Source]] = {}
        for i, source in enumerate(sources):
            alone = self.bank.info.experts or not source.together
            groups.setdefault(i if alone else (source.routing, source.placement, source.keep), []).append(source)
        return list(groups.values())

    def check(self, host: Host) -> None:
        """Raises if the base has another shape, and warns once if its weights look like another training's."""
        base = Base.of(host.flux)
        if problem := self.bank.info.base.describe_incompatibility(base):
            raise ValueError(problem)
        if not self._compared_weights:
            self._compared_weights = True
            if self.bank.info.base.probe:
                base = base.with_probe(host.flux)
            if difference := self.bank.info.base.describe_difference(base):
                logging.getLogger(__name__).warning(difference)

    def _prepare_group(self, host: Host, group: Sequence[Source], batch: ForwardBatch) -> Iterator[CachedSourceKV]:
        """Finds or makes the K/V of sources that see one another (one, as a rule) for every sample of the batch."""
        keys, state = self._cache_keys(host, group, batch), (batch.readers.grid, host.state(), self.bank.state())
        placement, keep = group[0].placement, group[0].keep

        def restore(sample: SampleKV) -> SampleKV:
            return sample if placement == "cpu" else sample.move(lambda x: x.to(batch.device))

        samples: dict[Hashable, SampleKV] = {}
        missing: dict[Hashable, int] = {}
        for i, key in enumerate(keys):
            sample = samples.get(key) or self.cache.find(key, state, restore if keep else None)
            if sample is None:
                missing[key] = i
            else:
                samples[key] = sample
        if missing:
            for key, sample in zip(missing, self._compute_kv(host, group, batch, list(missing.values())), strict=True):
                samples[key] = sample
                if self.cached and not self._follows_time():
                    self.cache.add(key, state, sample, keep)
        first = 0
        for source in group:
            rows, columns = token_grid(source.latent, host.flux.patch_size)
            yield CachedSourceKV(source, [samples[key] for key in keys], slice(first, first + rows * columns))
            first += rows * columns

    def _follows_time(self) -> bool:
        """Banks of the shared timestep: every step has K/V of its own, nothing is worth caching."""
        return self.bank.info.source.follows_time

    def _cache_keys(self, host: Host, group: Sequence[Source], batch: ForwardBatch) -> list[Hashable]:
        """Which picture, prompt and size each sample's K/V belong to."""
        grid, times, pooled, guidance = batch.readers
        size = (grid.rows, grid.columns, batch.channels, str(batch.device), host.dtype)
        unused = [None] * len(times)
        time_keys = times.tolist() if self._follows_time() else unused
        is_live = find_source_format(self.bank.info, group[0].routing).guidance == "live"
        guidance_keys = unused if guidance is None or not is_live else guidance.tolist()
        prompt_keys = unused if pooled is None else map(hash_tensor, pooled)
        common = (tuple(source.digest for source in group), group[0].placement, size)
        images = (tuple(batch.select_image(source, i) for source in group) for i in range(len(times)))
        return [(common, *key) for key in zip(images, prompt_keys, time_keys, guidance_keys, strict=True)]

    def _compute_kv(
        self, host: Host, group: Sequence[Source], batch: ForwardBatch, samples: list[int]
    ) -> list[SampleKV]:
        """Computes the K/V of sources that see one another for some samples of the batch."""

        def select(source: Source) -> SourcePicture:
            latent = host.scale_latent(source.latent[[batch.select_image(source, i) for i in samples]])
            return SourcePicture(fill_channels(latent, batch.channels).to(batch.device, host.dtype), source.number)

        grid, times, pooled, guidance = batch.readers
        pooled, guidance = (None if part is None else part[samples] for part in (pooled, guidance))
        for source in group:
            self._warn_unusual(source)
        routing, readers = group[0].routing, ReaderConditions(grid, times[samples], pooled, guidance)
        pictures = [select(source) for source in group]
        stream, pe = run_source_pass(host, self.bank, routing, self.make_selector(routing), pictures, readers)
        return split_kv_by_sample(_check_finite(stream), pe, group[0].placement)

    def _warn_unusual(self, source: Source) -> None:
        """Says once what an imported expert was not trained on."""
        mismatch = find_source_format(self.bank.info, source.routing).describe_mismatch(source.latent)
        if mismatch and mismatch not in self._warned:
            self._warned.add(mismatch)
            logging.getLogger(__name__).warning(mismatch)

    def make_selector(self, routing: Routing) -> Selector:
        """Makes the function that chooses the experts of each block; subclasses may choose in another way."""
        return make_selector(self.bank, routing)

    def __call__(self, *args, **kwargs) -> dict:
        """The `attn1_patch` that appends what `prepare` made."""
        return append_sources_patch(*args, **kwargs)

    def cleanup(self) -> None:
        """Ends a sampling run: frees its K/V. ComfyUI's ModelPatcher calls it on every object among its patches."""
        self.cache.end_run()


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
