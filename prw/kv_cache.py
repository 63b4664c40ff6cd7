"""Keys and values of a source between sampler steps: where they are stored, and how they are found again.

An entry is one sample's K/V in all blocks. It is found only while everything it depends on is the same,
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
    """Gives a CPU copy, x itself if it is there already."""
    return x if x.device.type == "cpu" else x.cpu()


def to_pinned(x: Tensor) -> Tensor:
    """Gives a CPU copy that the GPU can stream back; an ordinary one if no memory can be pinned."""
    if x.device.type != "cuda":
        return x.clone(memory_format=torch.contiguous_format) if x.device.type == "cpu" else x.cpu()
    try:
        copy = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    except RuntimeError:
        copy = torch.empty(x.shape, dtype=x.dtype)
    return copy.copy_(x)


STORE: dict[str, Callable[[Tensor], Tensor | Packed]] = {
    # clone: a sample of a batch must not hold the whole batch in memory
    "gpu": lambda x: x.clone(memory_format=torch.contiguous_format),
    "cpu": to_pinned,
    "fp8": Packed.pack,
}
"""By a source's placement: how its K/V are stored between steps."""


class SampleKV:
    """One sample's K/V and routes, block by block, and the rotary positions of its tokens."""

    def __init__(self, pe: Tensor):
        self.pe = pe
        self.kv: dict[str, tuple[Tensor | Packed, Tensor | Packed]] = {}
        self.routes: dict[str, Route] = {}

    def read(self, block: str, device: torch.device) -> tuple[Tensor, Tensor]:
        k, v = self.kv[block]
        return k.to(device, non_blocking=True), v.to(device, non_blocking=True)

    def move(self, to: Callable[[Tensor], Tensor]) -> "SampleKV":
        """Gives a copy whose tensors went through `to`."""
        moved = SampleKV(to(self.pe))
        moved.kv = {block: (_move(k, to), _move(v, to)) for block, (k, v) in self.kv.items()}
        moved.routes = self.routes
        return moved


def _move(x: Tensor | Packed, to: Callable[[Tensor], Tensor]) -> Tensor | Packed:
    return Packed(to(x.data), to(x.scale), x.dtype) if isinstance(x, Packed) else to(x)


def split_kv_by_sample(stream: Iterable[BlockKV], pe: Tensor, placement: str) -> list[SampleKV]:
    """Cuts a batch's source stream into samples and stores each block at once; pe is (batch, 1, tokens, ...)."""
    samples = [SampleKV(pe[i : i + 1]) for i in range(len(pe))]
    store = STORE[placement]
    for block, k, v, route in stream:
        for i, sample in enumerate(samples):
            sample.kv[block] = (store(k[i : i + 1]), store(v[i : i + 1]))
            sample.routes[block] = Route(*(part[i] for part in route))
    return samples


class CacheEntry(NamedTuple):
    """A sample's K/V with all that they depend on besides their key."""

    state: Any
    sample: SampleKV
    keep: bool


class KVCache:
    """Samples by key: which picture, prompt and size they belong to.

    A key has one entry. If what it depends on has changed (weights, positions, experts), it is not
    found, and replaced by the next. Kept entries wait on the CPU until KEPT_RUNS runs made no use of them.
    """

    def __init__(self):
        self.entries: dict[Hashable, CacheEntry] = {}
        self.kept: dict[Hashable, CacheEntry] = {}
        self._unused_runs: dict[Hashable, int] = {}

    def find(self, key: Hashable, state: Any, restore: Callable[[SampleKV], SampleKV] | None) -> SampleKV | None:
        """Finds the sample of a key, if it still holds; a kept one goes through `restore` (None:
        it stays where it is)."""
        entry = self.entries.get(key)
        if entry is None and restore and (kept := self.kept.get(key)) is not None and kept.state == state:
            entry = self.entries[key] = kept._replace(sample=restore(kept.sample))
        return entry.sample if entry is not None and entry.state == state else None

    def add(self, key: Hashable, state: Any, sample: SampleKV, keep: bool) -> None:
        self.entries[key] = CacheEntry(state, sample, keep)

    def end_run(self) -> None:
        """Frees the run's entries; those that are kept move to the CPU. Ending twice changes nothing."""
        entries, self.entries = self.entries, {}
        if not entries:
            return
        self._unused_runs = {key: runs + 1 for key, runs in self._unused_runs.items() if runs + 1 < KEPT_RUNS}
        self.kept = {key: entry for key, entry in self.kept.items() if key in self._unused_runs}
        try:
            for key, entry in entries.items():
                if entry.keep:
                    kept = self.kept.get(key)
                    if kept is None or kept.state != entry.state:
                        self.kept[key] = entry._replace(sample=entry.sample.move(to_cpu))
                    self._unused_runs[key] = 0
        except (RuntimeError, MemoryError) as error:  # a finished picture matters more
            self.kept.clear()
            logging.getLogger(__name__).warning("CoLoGen could not keep the source for the next run: %s", error)
