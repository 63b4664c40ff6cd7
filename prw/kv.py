"""Keys and values of a source between sampler steps: where they wait, and how they are found again.

One row is one sample's K/V in all blocks. Rows are found by a key of everything they depend on, so a
batch that is cut differently at the next step, or a changed picture, can never read another's.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from .router import Route
from .weaving import BlockKV

FP8_MAX = 448.0


class Packed(NamedTuple):
    """A tensor in fp8 with one scale a head."""

    data: Tensor
    scale: Tensor
    dtype: torch.dtype

    @classmethod
    def pack(cls, x: Tensor) -> "Packed":
        scale = x.abs().amax(dim=(-2, -1), keepdim=True).float().clamp(min=1e-12) / FP8_MAX
        return cls((x.float() / scale).to(torch.float8_e4m3fn), scale, x.dtype)

    def to(self, device: torch.device, non_blocking: bool = False) -> Tensor:
        data, scale = (t.to(device, non_blocking=non_blocking) for t in (self.data, self.scale))
        return (data.float() * scale).to(self.dtype)


def to_cpu(x: Tensor) -> Tensor:
    """A CPU copy; pinned where the device can then stream it back."""
    if x.device.type == "cpu":
        return x.clone()
    copy = torch.empty(x.shape, dtype=x.dtype, pin_memory=x.device.type == "cuda")
    return copy.copy_(x)


PLACE: dict[str, Callable[[Tensor], Tensor | Packed]] = {
    # clone: a row of a batch must not hold the whole batch in memory
    "gpu": lambda x: x.clone(memory_format=torch.contiguous_format),
    "cpu": to_cpu,
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


class KVCache:
    """Rows of the current run, and on the CPU those that sources asked to keep from the last one."""

    def __init__(self):
        self.rows: dict[Hashable, Row] = {}
        self.kept: dict[Hashable, Row] = {}
        self._wanted: dict[Hashable, Row] = {}

    def find(self, key: Hashable) -> Row | None:
        return self.rows.get(key)

    def recall(self, key: Hashable, full_key: Hashable, device: torch.device) -> Row | None:
        """A row kept from the last run; `full_key` adds what cannot change within one (weights, bank)."""
        kept = self.kept.get(full_key)
        if kept is None:
            return None
        self._wanted[full_key] = kept
        self.rows[key] = kept.moved(lambda x: x.to(device))
        return self.rows[key]

    def add(self, key: Hashable, row: Row, keep_as: Hashable = None) -> None:
        self.rows[key] = row
        if keep_as is not None:
            self._wanted[keep_as] = row

    def end_run(self) -> None:
        """Frees the run's rows; what was asked to be kept, and nothing older, stays on the CPU."""
        last = self.kept
        self.kept = {key: row if row is last.get(key) else row.moved(to_cpu) for key, row in self._wanted.items()}
        self.rows, self._wanted = {}, {}
