"""What one forward of FLUX gets behind its own keys, on its way through transformer_options to the blocks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .kv_cache import Row
from .router import Route
from .source import Grid, Source, read_bias
from .weaving import append_mask, append_positions, append_sources

OPTION = "cologen"
"""The key under which a forward's Appendix travels in transformer_options."""


class Part:
    """One source in one forward: a row of K/V for every sample."""

    def __init__(self, source: Source, rows: Sequence[Row]):
        self.source, self.rows = source, rows
        self.pe = rows[0].pe
        self.tokens = self.pe.shape[2]

    def read(self, block: str, device: torch.device) -> tuple[Tensor, Tensor]:
        distinct = {id(row): row.read(block, device) for row in self.rows}
        if len(distinct) == 1:
            return next(iter(distinct.values()))
        k, v = zip(*(distinct[id(row)] for row in self.rows), strict=True)
        return torch.cat(k), torch.cat(v)


class Appendix:
    """What one forward of FLUX gets behind its own keys; positions and mask are made once, not per block."""

    def __init__(self, parts: Sequence[Part], grid: Grid):
        self.parts, self.grid = parts, grid
        self._pe = (None, None)
        self._mask = None

    def append(self, block: str, q: Tensor, k: Tensor, v: Tensor, pe: Tensor, mask: Tensor | None, text: int) -> dict:
        keys = k.shape[2]
        if self._pe[0] is not pe:
            self._pe = (pe, append_positions(pe, keys, [part.pe for part in self.parts]))
        shape = (q.shape[2], keys, text)
        if self._mask is None or self._mask[0] is not mask or self._mask[1] != shape:
            tokens = sum(part.tokens for part in self.parts)
            self._mask = (mask, shape, append_mask(mask, self._bias(q, text), q, keys, tokens))
        longer = self._pe[1]
        k, v = append_sources(k, v, longer, [part.read(block, k.device) for part in self.parts])
        return {"k": k, "v": v, "pe": longer, "attn_mask": self._mask[2]}

    def routes(self, part: int = 0, sample: int = 0) -> dict[str, Route]:
        """The route that one source takes for one sample, block by block."""
        return self.parts[part].rows[sample].routes

    def _bias(self, q: Tensor, text: int) -> Tensor | None:
        biases = [read_bias(part.source, text, self.grid, q.shape[2]) for part in self.parts]
        if all(bias is None for bias in biases):
            return None
        columns = [q.new_zeros(q.shape[2], 1) if bias is None else bias.to(q) for bias in biases]
        return torch.cat([c.expand(-1, part.tokens) for c, part in zip(columns, self.parts, strict=True)], dim=1)


def append_here(q, k, v, pe=None, attn_mask=None, extra_options: dict[str, Any] | None = None) -> dict:
    """The `attn1_patch` of both hosts: what this forward's Appendix holds for this block."""
    options = extra_options or {}
    appendix: Appendix | None = options.get(OPTION)
    if appendix is None:
        return {}
    block = f"{options['block_type']}_blocks.{options['block_index']}"
    return appendix.append(block, q, k, v, pe, attn_mask, options["img_slice"][0])
