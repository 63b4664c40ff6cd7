"""Keys and values of a source between sampler steps: where they wait, and how they are found again.

One row is one sample's K/V in all blocks. It is found only while everything it depends on is the same,
so a batch that is cut differently at the next step, or a changed picture, can never read another's.
"""

import logging
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .router import Route
from .weaving import BlockKV

KEPT_RUNS = 3
"""Enough for a graph of two samplers and a route map."""


class Packed(NamedTuple):
    """A tensor in fp8 with one scale a head."""

    data: Tensor
    scale: Tensor
    dtype: torch.dtype

    @classmethod
    def pack(cls, x: Tensor) -> "Packed":
        scale = x.abs().amax(dim=(-2, -1), keepdim=True).float().clamp(min=1e-12) / torch.finfo(torch.float8_e4m3fn).max
        return cls((x.float() / scale).to(torch.float8_e4m3fn), scale, x.dtype)

    def to(self, device: torch.device, non_blocking: bool = False) -> Tensor:
        data, scale = (t.to(device, non_blocking=non_blocking) for t in (self.data, self.scale))
        return (data.float() * scale).to(self.dtype)


def to_cpu(x: Tensor) -> Tensor:
    """A CPU copy, x itself if it is there already."""
    return x if x.device.type == "cpu" else x.cpu()


def to_pinned(x: Tensor) -> Tensor:
    """A CPU copy that the GPU can stream back; an ordinary one if no memory can be pinned."""
    if x.device.type != "cuda":
        return x.clone(memory_format=torch.contiguous_format) if x.device.type == "cpu" else x.cpu()
    try:
        copy = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    except RuntimeError:
        copy = torch.empty(x.shape, dtype=x.dtype)
    return copy.copy_(x)


PLACE: dict[str, Callable[[Tensor], Tensor | Packed]] = {
    # clone: a row of a batch must not hold the whole batch in memory
    "gpu": lambda x: x.clone(memory_format=torch.contiguous_format),
    "cpu": to_pinned,
    "fp8": Packed.pack,
}


class Row:
    """One sample's K/V and routes, block by block, and the rotary positions of its tokens."""

    def __init__(self, pe: Tensor):
        self.pe = pe
        self.kv: dict[str, tuple[Tensor | Packed, Tensor | Packed]] = {}
        self.routes: dict[str, Route] = {}

    def read(self, block: str, device: torch.device) -> tuple[Tensor, Tensor]:
        k, v = self.kv[block]
        return k.to(device, non_blocking=True), v.to(device, non_blocking=True)

    def moved(self, place: Callable[[Tensor], Tensor]) -> "Row":
        row = Row(place(self.pe))
        row.kv = {block: tuple(_moved(x, place) for x in pair) for block, pair in self.kv.items()}
        row.routes = self.routes
        return row


def _moved(x: Tensor | Packed, place: Callable[[Tensor], Tensor]) -> Tensor | Packed:
    return Packed(place(x.data), place(x.scale), x.dtype) if isinstance(x, Packed) else place(x)


def rows_of(stream: Iterable[BlockKV], pe: Tensor, placement: str) -> list[Row]:
    """Collects a source stream over a batch into rows, placing each block at once; pe (batch, 1, tokens, ...)."""
    rows = [Row(pe[i : i + 1]) for i in range(len(pe))]
    place = PLACE[placement]
    for block, k, v, route in stream:
        for i, row in enumerate(rows):
            row.kv[block] = (place(k[i : i + 1]), place(v[i : i + 1]))
            row.routes[block] = Route(*(part[i] for part in route))
    return rows


class Entry(NamedTuple):
    """A row with all that it depends on."""

    depends: Any
    row: Row
    keep: bool


class KVCache:
    """Rows by slot: which picture, prompt and size they belong to.

    A slot holds one row. If what it depends on has changed (weights, positions, experts), it is not
    found, and replaced by the next. Kept rows wait on the CPU until KEPT_RUNS runs made no use of them.
    """

    def __init__(self):
        self.rows: dict[Hashable, Entry] = {}
        self.kept: dict[Hashable, Entry] = {}
        self._unused: dict[Hashable, int] = {}

    def find(self, slot: Hashable, depends: Any, place: Callable[[Row], Row] | None) -> Row | None:
        """The row in a slot, if it still holds; a kept one comes back to where `place` puts it (None: it stays)."""
        entry = self.rows.get(slot)
        if entry is None and place and (kept := self.kept.get(slot)) is not None and kept.depends == depends:
            entry = self.rows[slot] = kept._replace(row=place(kept.row))
        return entry.row if entry is not None and entry.depends == depends else None

    def add(self, slot: Hashable, depends: Any, row: Row, keep: bool) -> None:
        self.rows[slot] = Entry(depends, row, keep)

    def end_run(self) -> None:
        """Frees the run's rows; those that are kept move to the CPU. Ending twice changes nothing."""
        rows, self.rows = self.rows, {}
        if not rows:
            return
        self._unused = {slot: runs + 1 for slot, runs in self._unused.items() if runs + 1 < KEPT_RUNS}
        self.kept = {slot: entry for slot, entry in self.kept.items() if slot in self._unused}
        try:
            for slot, entry in rows.items():
                if entry.keep:
                    held = self.kept.get(slot)
                    fresh = held is None or held.depends != entry.depends
                    self.kept[slot] = entry._replace(row=entry.row.moved(to_cpu)) if fresh else held
                    self._unused[slot] = 0
        except (RuntimeError, MemoryError) as error:  # a finished picture matters more
            self.kept.clear()
            logging.getLogger(__name__).warning("CoLoGen could not keep the source for the next run: %s", error)
