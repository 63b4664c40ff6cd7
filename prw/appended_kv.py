"""What one forward of FLUX gets behind its own keys, on its way through transformer_options to the blocks."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .kv_cache import SampleKV
from .positions import Grid
from .router import Route
from .source import Reading, Source, read_bias
from .weaving import append_mask, append_positions, append_sources

OPTION = "cologen"
"""The key under which a forward's AppendedKV travels in transformer_options."""
KnownKV = dict[int, tuple[Tensor, Tensor]]
"""K and V of one block by the id of the SampleKV that they were read from: several sources may have parts of one."""


class SourceKV:
    """One source's keys and values in one forward, for every sample of the batch."""

    is_shared = False
    """Whether they are no source's own, but stand beside several."""

    def __init__(self, source: Reading, pe: Tensor):
        self.source, self.pe = source, pe
        self.tokens = pe.shape[2]

    def read(self, block: str, device: torch.device, known: KnownKV | None = None) -> tuple[Tensor, Tensor]:
        """Reads K and V of a block (batch, heads, tokens, head_dim), before rotation.

        `known` are entries that were read for other sources of the block, and gets those that are read here.
        """
        raise NotImplementedError

    def read_bias(self, text: int, target: Grid, queries: int) -> Tensor | None:
        """Gives the log weight (queries, 1) that text and noise give its keys; None if it is 0 everywhere."""
        return read_bias(self.source, text, target, queries)


class SampledKV(SourceKV):
    """K/V read from the cache's entries, one for each sample of the batch.

    Samples of the same picture and prompt have the same entry. Sources that see one another have one entry together, of
    which `tokens` are these keys. Several sources may share them, as those of one whole model share its prompt's: they
    are then read wherever one of these is, with the largest weight (our choice).
    """

    def __init__(self, sources: Sequence[Reading], samples: Sequence[SampleKV], tokens: slice = slice(None)):
        super().__init__(sources[0], samples[0].pe[:, :, tokens])
        self.sharers, self.samples, self.slice = sources, samples, tokens

    def read(self, block: str, device: torch.device, known: KnownKV | None = None) -> tuple[Tensor, Tensor]:
        known = {} if known is None else known
        for sample in self.samples:
            if id(sample) not in known:
                known[id(sample)] = sample.read(block, device)
        parts = [[part[:, :, self.slice] for part in known[id(sample)]] for sample in self.samples]
        if len(set(map(id, self.samples))) == 1:
            k, v = parts[0]
        else:
            k, v = map(torch.cat, zip(*parts, strict=True))
        return k, v

    def read_bias(self, text: int, target: Grid, queries: int) -> Tensor | None:
        biases = [read_bias(source, text, target, queries) for source in self.sharers]
        if all(bias is None for bias in biases):
            return None
        return torch.stack([torch.zeros(queries, 1) if bias is None else bias for bias in biases]).amax(0)


class CachedSourceKV(SampledKV):
    """One source's K/V in the base's own stream, and the routes that it took."""

    def __init__(self, source: Source, samples: Sequence[SampleKV], tokens: slice = slice(None)):
        super().__init__([source], samples, tokens)
        self.routing = source.routing

    def routes(self, sample: int = 0) -> dict[str, Route]:
        """Returns the route that one sample takes, by block."""
        return self.samples[sample].routes


class AppendedKV:
    """The sources of one forward; positions and mask are made once, not per block."""

    def __init__(self, sources: Sequence[SourceKV], grid: Grid):
        self.sources, self.grid = sources, grid
        self._positions: tuple[Tensor, Tensor] | None = None
        """The forward's own positions, and the same with the sources' behind them."""
        self._mask: tuple[Tensor | None, tuple[int, int, int], Tensor | None] | None = None
        """The forward's own mask, (queries, keys, text tokens) that it is for, and the mask with the sources' columns."""

    def append(self, block: str, q: Tensor, k: Tensor, v: Tensor, pe: Tensor, mask: Tensor | None, text: int) -> dict:
        """Gives a block's k, v, pe and attn_mask with the sources behind its own keys; `text` tokens come first."""
        keys = k.shape[2]
        if not isinstance(pe, Tensor):
            raise ValueError(
                f"The positions in {block} are a {type(pe).__name__}, expected ComfyUI's own tensor: bypass the node that replaces "
                f"FLUX's blocks or positions (a DyPE for FLUX.2 does)."
            )
        if self._positions is None or self._positions[0] is not pe:
            self._positions = (pe, append_positions(pe, keys, [source.pe for source in self.sources]))
        shape = (q.shape[2], keys, text)
        if self._mask is None or self._mask[0] is not mask or self._mask[1] != shape:
            tokens = sum(source.tokens for source in self.sources)
            self._mask = (mask, shape, append_mask(mask, self._bias(q, text), q, keys, tokens))
        all_pe = self._positions[1]
        known: KnownKV = {}
        k, v = append_sources(k, v, all_pe, [source.read(block, k.device, known) for source in self.sources])
        return {"k": k, "v": v, "pe": all_pe, "attn_mask": self._mask[2]}

    def find_columns(self) -> Iterator[tuple[SourceKV, slice]]:
        """Yields each source with its keys' places in the block to which they were appended last."""
        if self._mask is None:
            raise RuntimeError("The sources were not appended yet, so they have no place: please report this graph.")
        start = self._mask[1][1]
        for source in self.sources:
            yield source, slice(start, start := start + source.tokens)

    def _bias(self, q: Tensor, text: int) -> Tensor | None:
        biases = [source_kv.read_bias(text, self.grid, q.shape[2]) for source_kv in self.sources]
        if all(bias is None for bias in biases):
            return None
        columns = [q.new_zeros(q.shape[2], 1) if bias is None else bias.to(q) for bias in biases]
        return torch.cat([c.expand(-1, source.tokens) for c, source in zip(columns, self.sources, strict=True)], dim=1)


def append_sources_patch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pe: Any = None,
    attn_mask: Tensor | None = None,
    extra_options: dict[str, Any] | None = None,
) -> dict:
    """Appends what this forward's AppendedKV holds for this block: the `attn1_patch` of both hosts."""
    options = extra_options or {}
    appended: AppendedKV | None = options.get(OPTION)
    if appended is None:
        return {}
    block = f"{options['block_type']}_blocks.{options['block_index']}"
    return appended.append(block, q, k, v, pe, attn_mask, options["img_slice"][0])
