"""Sources that the base reads itself: its image side's own stream, with a bank's experts in every block."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from .appended_kv import CachedSourceKV
from .find_experts import find_router, find_source_format
from .kv_cache import SampleKV
from .select_experts import ExpertBank
from .source import Routing, Source, fill_channels, hash_tensor
from .source_group import ForwardBatch, PictureGroup
from .source_pass import Host, ReaderConditions, SourcePicture, find_position, run_source_pass
from .weaving import Selector


class StreamGroup(PictureGroup):
    """Sources in the base's own stream; they see one another where the base has no experts."""

    def __init__(
        self,
        host: Host,
        sources: Sequence[Source],
        batch: ForwardBatch,
        bank: ExpertBank,
        make_selector: Callable[[Routing], Selector],
    ):
        super().__init__(host, sources, batch, bank)
        self.make_selector = make_selector
        self.is_cached = not bank.info.source.follows_time
        self.grid = None if find_position(host, bank, self.routing) == "reference" else batch.readers.grid
        """The pictures' grid, if the source's place depends on it."""

    def make_keys(self) -> list[Hashable]:
        batch = self.batch
        _, times, pooled, guidance = batch.readers
        size = None if self.grid is None else (self.grid.rows, self.grid.columns)
        computed = (size, batch.channels, str(batch.device), self.host.dtype)
        unused = [None] * len(times)
        time_keys = unused if self.is_cached else times.tolist()
        is_live = find_source_format(self.bank.info, self.routing).guidance == "live"
        guidance_keys = unused if guidance is None or not is_live else guidance.tolist()
        prompt_keys = unused if pooled is None else map(hash_tensor, pooled)
        common = (tuple(source.digest for source in self.sources), self.placement, computed)
        images = map(self.select_images, range(len(times)))
        return [(common, *key) for key in zip(images, prompt_keys, time_keys, guidance_keys, strict=True)]

    def read_state(self) -> Any:
        return self.grid, self.host.state(), self.bank.state()

    def compute(self, samples: Sequence[int]) -> list[SampleKV]:
        batch, host = self.batch, self.host

        def select(source: Source) -> SourcePicture:
            latent = fill_channels(self.select_latents(source, samples), batch.channels)
            return SourcePicture(latent.to(batch.device, host.dtype), source.number)

        grid, times, pooled, guidance = batch.readers
        rows = list(samples)
        pooled, guidance = (None if part is None else part[rows] for part in (pooled, guidance))
        readers = ReaderConditions(grid, times[rows], pooled, guidance)
        pictures = [select(source) for source in self.sources]
        select_experts = self.make_selector(self.routing)
        stream, pe = run_source_pass(host, self.bank, self.routing, select_experts, pictures, readers)
        experts = find_router(self.bank.info, self.routing)[1].experts
        return self._store(stream, pe, experts)

    def split(self, samples: Sequence[SampleKV]) -> Iterator[CachedSourceKV]:
        for source, tokens in self.slice_tokens():
            yield CachedSourceKV(source, samples, tokens)
