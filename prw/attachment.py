"""A bank at work on a FLUX: sources become keys and values once, and every block gets them appended.

The same object serves both hosts; a source's way through FLUX is in source_pass.py, a whole model's in model_pass.py.
"""

import logging
from collections.abc import Hashable, Sequence

from .appended_kv import AppendedKV, append_sources_patch
from .base_model import Base
from .find_experts import find_model, find_source_format
from .flux.families import check_latent_channels, find_model_family
from .flux.inputs import FluxInputs
from .kv_cache import KVCache
from .learned_keys import LearnedGroup, LearnedSource
from .model_group import ModelGroup, PromptHashes
from .select_experts import ExpertBank, make_selector
from .source import Reading, Routing, Source
from .source_group import ForwardBatch, SourceGroup
from .source_pass import Host, ReaderConditions, find_position
from .stream_group import StreamGroup
from .weaving import Selector


class Attachment:
    """Holds a bank, and for the length of a sampling run the K/V of its sources."""

    def __init__(self, bank: ExpertBank, cached: bool = True):
        self.bank = bank
        self.cached = cached
        """False recomputes the source at every step: same result, for tests and benchmarks."""
        self.cache = KVCache()
        self._prompt_hashes = PromptHashes()
        self._compared_weights = False
        self._warned: set[str] = set()

    def prepare(
        self, host: Host, sources: Sequence[Reading], inputs: FluxInputs, chunks: int = 1, channels: int = 0
    ) -> AppendedKV:
        """Makes K/V of all sources for a forward of FLUX; `chunks` conds of equal size share the batch.

        `channels` counts those of img_in where x lacks some (0: x has them all).
        """
        self.check(host)
        x, family = inputs.x, find_model_family(host.flux)
        for source in sources:
            if isinstance(source, Source):
                check_latent_channels(source.latent, family)
        readers = ReaderConditions.of(host, inputs)
        batch = ForwardBatch(readers, inputs.context, len(x) // chunks, channels or x.shape[1], x.device)
        groups = self._make_groups(host, sources, batch)
        return AppendedKV([kv for group in groups for kv in group.prepare(self.cache, self.cached)], readers.grid)

    def _make_groups(self, host: Host, sources: Sequence[Reading], batch: ForwardBatch) -> list[SourceGroup]:
        """Groups sources by who sees whom: with low-rank experts each is alone, and so are numbers."""
        numbers = [LearnedGroup(host, source, batch) for source in sources if isinstance(source, LearnedSource)]
        groups: dict[Hashable, list[Source]] = {}
        for i, source in enumerate(source for source in sources if isinstance(source, Source)):
            model = find_model(self.bank.info, source.routing)
            alone = not source.together or (self.bank.info.experts and not model)
            reader = (model, source.prompt_hash) if model else self._find_reading(host, source.routing)
            groups.setdefault(i if alone else (reader, source.placement, source.keep), []).append(source)
        return [*(self.make_group(host, group, batch) for group in groups.values()), *numbers]

    def _find_reading(self, host: Host, routing: Routing) -> Hashable:
        """Finds what of a routing acts where there are no experts: no task does, so pictures of two see one another."""
        position = find_position(host, self.bank, routing)
        return position, routing.shift if position == "shifted" else None, routing.expert

    def make_group(self, host: Host, sources: Sequence[Source], batch: ForwardBatch) -> SourceGroup:
        """Chooses how the K/V of sources that see one another are made."""
        if model := find_model(self.bank.info, sources[0].routing):
            return ModelGroup(host, sources, batch, self.bank, model, self._prompt_hashes)
        for source in sources:
            self._warn_unusual(source)
        return StreamGroup(host, sources, batch, self.bank, self.make_selector)

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

    def _warn_unusual(self, source: Source) -> None:
        """Says once what an imported expert was not trained on."""
        self.warn_once(find_source_format(self.bank.info, source.routing).describe_mismatch(source.latent))

    def warn_once(self, text: str) -> None:
        """Logs a warning if there is one that was not logged yet."""
        if text and text not in self._warned:
            self._warned.add(text)
            logging.getLogger(__name__).warning(text)

    def make_selector(self, routing: Routing) -> Selector:
        """Makes the function that chooses the experts of each block; subclasses may choose in another way."""
        return make_selector(self.bank, routing)

    def __call__(self, *args, **kwargs) -> dict:
        """Appends what `prepare` made, as an `attn1_patch`."""
        return append_sources_patch(*args, **kwargs)

    def cleanup(self) -> None:
        """Ends a sampling run: frees its K/V. ComfyUI's ModelPatcher calls it on every object among its patches."""
        self.cache.end_run()
        self._prompt_hashes = PromptHashes()
