"""Sources that see one another, as a rule one: how the K/V of such a group are found in the cache, made and read.

The ways to make them stand in files of their own: the base's own stream with a bank's experts (stream_group.py), a second
model (model_group.py), and keys learned for a number (learned_keys.py).
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .appended_kv import SourceKV
from .files.errors import BankError
from .kv_cache import KVCache, SampleKV, split_kv_by_sample
from .positions import token_grid
from .select_experts import ExpertBank
from .source import Reading, Source
from .source_pass import Host, ReaderConditions
from .weaving import BlockKV


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
        """Selects which of the source's images a sample uses: they repeat as the host repeats conditions."""
        return sample % self.pictures % len(source.latent)


class SourceGroup:
    """Sources that see one another, in one forward; a subclass says how their K/V are made."""

    is_cached = True
    """Whether later steps may read the same K/V."""

    def __init__(self, host: Host, sources: Sequence[Reading], batch: ForwardBatch):
        self.host, self.batch = host, batch
        self.placement, self.keep = sources[0].placement, sources[0].keep

    def make_keys(self) -> list[Hashable]:
        """Says which picture, prompt and size each sample's K/V belong to."""
        raise NotImplementedError

    def read_state(self) -> Any:
        """Says what K/V depend on besides their keys: of a key there is one entry at a time."""
        raise NotImplementedError

    def compute(self, samples: Sequence[int]) -> list[SampleKV]:
        """Computes the K/V of some samples of the batch."""
        raise NotImplementedError

    def split(self, samples: Sequence[SampleKV]) -> Iterator[SourceKV]:
        """Gives each source's part of the K/V of all samples."""
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
        """Makes what brings kept K/V back from the CPU; None: they stay there."""
        if not self.keep:
            return None
        return lambda kept: kept if self.placement == "cpu" else kept.move(lambda x: x.to(self.batch.device))

    def _store(self, stream: Iterator[BlockKV], pe: Tensor, experts: Sequence[str]) -> list[SampleKV]:
        """Stores a stream's K/V sample by sample; raises if they are not finite."""
        return split_kv_by_sample(check_finite(stream, experts), pe, self.placement)


class PictureGroup(SourceGroup):
    """Pictures that a bank's experts read."""

    def __init__(self, host: Host, sources: Sequence[Source], batch: ForwardBatch, bank: ExpertBank):
        super().__init__(host, sources, batch)
        self.sources, self.bank, self.routing = sources, bank, sources[0].routing

    def select_images(self, sample: int) -> tuple[int, ...]:
        """Selects which of each source's images a sample uses."""
        return tuple(self.batch.select_image(source, sample) for source in self.sources)

    def select_latents(self, source: Source, samples: Sequence[int]) -> Tensor:
        """Selects the images of a source that these samples use, on FLUX's scale."""
        return self.host.scale_latent(source.latent[[self.batch.select_image(source, i) for i in samples]])

    def slice_tokens(self, first: int = 0) -> Iterator[tuple[Source, slice]]:
        """Gives each source with its tokens' places among the group's; the first source's begin at `first`."""
        for source in self.sources:
            rows, columns = token_grid(source.latent, self.host.flux.patch_size)
            yield source, slice(first, first := first + rows * columns)


def check_finite(stream: Iterator[BlockKV], experts: Sequence[str]) -> Iterator[BlockKV]:
    """Passes a stream on and raises at its end if a block's keys or values are not finite; `experts` are its routes' columns."""
    blocks = []
    for kv in stream:
        # looked at once, in the end: the device is not waited for in every block
        blocks.append((kv.block, kv.route.expert, torch.isfinite(kv.k).all() & torch.isfinite(kv.v).all()))
        yield kv
    if not blocks or torch.stack([is_finite for *_, is_finite in blocks]).all():
        return
    block, columns = next((block, columns) for block, columns, is_finite in blocks if not is_finite)
    taken = ", ".join(experts[column] for column in columns.unique().tolist())
    raise BankError(
        f"The source's values are not finite in {block}, where it takes {taken}, expected numbers: train or download these "
        f"experts again, or load FLUX in bf16 instead of fp16."
    )
