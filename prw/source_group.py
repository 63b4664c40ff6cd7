"""Sources that see one another, as a rule one: how the K/V of such a group are found in the cache, made and read.

The ways to make them stand in files of their own: the base's own stream with a bank's experts (stream_group.py), a second
model (model_group.py), and keys learned for a number (learned_keys.py).
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .appended_kv import SourceKV
from .kv_cache import KVCache, SampleKV
from .source import Reading, Source
from .source_pass import Host, ReaderConditions


class ForwardBatch(NamedTuple):
    """What the K/V of one forward depend on besides their sources."""

    readers: ReaderConditions
    context: Tensor
    """(batch, tokens, width), the prompts that text and noise are of."""
    pictures: int
    """Samples of each cond in the batch."""
    channels: int
    """Of the latents that img_in takes: the VAE's, more for Fill and control models."""
    device: torch.device

    def select_image(self, source: Source, sample: int) -> int:
        """Which of the source's images a sample uses: they repeat as the host repeats conditions."""
        return sample % self.pictures % len(source.latent)


class SourceGroup:
    """Sources that see one another, in one forward; a subclass says how their K/V are made."""

    is_cached = True
    """Whether later steps may read the same K/V."""

    def __init__(self, host: Host, sources: Sequence[Reading], batch: ForwardBatch):
        self.host, self.batch = host, batch
        self.placement, self.keep = sources[0].placement, sources[0].keep

    def make_keys(self) -> list[Hashable]:
        """Which picture, prompt and size each sample's K/V belong to."""
        raise NotImplementedError

    def read_state(self) -> Any:
        """What K/V depend on besides their keys: of a key there is one entry at a time."""
        raise NotImplementedError

    def compute(self, samples: Sequence[int]) -> list[SampleKV]:
        """Computes the K/V of some samples of the batch."""
        raise NotImplementedError

    def split(self, samples: Sequence[SampleKV]) -> Iterator[SourceKV]:
        """Each source's part of the K/V of all samples."""
        raise NotImplementedError

    def prepare(self, cache: KVCache, fill_cache: bool) -> Iterator[SourceKV]:
        """Finds or makes the K/V for every sample of the batch."""
        keys, state = self.make_keys(), self.read_state()
        samples: dict[Hashable, SampleKV] = {}
        missing: dict[Hashable, int] = {}
        for i, key in enumerate(keys):
            sample = samples.get(key) or cache.find(key, state, self._make_restorer())
            if sample is None:
                missing[key] = i
            else:
                samples[key] = sample
        if missing:
            for key, sample in zip(missing, self.compute(list(missing.values())), strict=True):
                samples[key] = sample
                if fill_cache and self.is_cached:
                    cache.add(key, state, sample, self.keep)
        return self.split([samples[key] for key in keys])

    def _make_restorer(self) -> Callable[[SampleKV], SampleKV] | None:
        """What brings kept K/V back from the CPU; None: they stay there."""
        if not self.keep:
            return None
        return lambda kept: kept if self.placement == "cpu" else kept.move(lambda x: x.to(self.batch.device))
