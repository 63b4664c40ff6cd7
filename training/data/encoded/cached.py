"""Lessons that stay on the disk: rows of memory-mapped shards, read when an iteration asks for them.

Any row can be read at any time, so that the order of samples is the one that lessons in memory have (lessons.slots):
no buffer to fill, no place to keep. A row lies together, as a few hundred KiB; that is what a disk reads well.
"""

import json
from bisect import bisect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ....prw.files.safe_file import SafeFile
from ...checkpoint.folder_guard import claim, refuse_other
from .dataset import Lessons, in_row, padded, taught_of
from .index import ABOUT, EMPTY, HOLDS, KEY, Entry, Kind, all_entries, read_json, write_json

OPEN = 512
"""Shards that are mapped at once."""
AGAIN = "give the same cologen data cache again, which makes anew what is missing"


class Shard(NamedTuple):
    tensors: dict[str, Tensor]
    ids: list[str]
    prompts: list[str]
    starts: list[int]
    """Where each sample's words begin in `context`, and where the last one's end."""


class CachedSet:
    """The samples of one set that were there when the run began."""

    def __init__(self, task: str, folder: Path, entries: Sequence[Entry]):
        self.task, self.folder, self.entries = task, folder, entries
        self.kinds: list[Kind] = list(dict.fromkeys(kind for entry in entries for kind, _ in entry.kinds))
        runs = [(i, *part) for i, entry in enumerate(entries) for part in entry.kinds]
        counts = [count for *_, count in runs]
        self.shard = np.repeat([i for i, *_ in runs], counts)
        self.kind = np.repeat([self.kinds.index(kind) for _, kind, _ in runs], counts)
        sizes = [sum(count for _, count in entry.kinds) for entry in entries]
        self.place = np.concatenate([np.arange(size) for size in sizes])
        empty, trimmed = empty_of(folder)[0], read_json(folder / ABOUT)["trimmed"]
        least = empty.shape[1] if trimmed else 0
        self.tokens = max(least, *(entry.tokens for entry in entries))
        # T5's padding was trimmed: in its place stands what it makes of the empty prompt's
        self.padding = padded(empty[:, :least], self.tokens)[0]
        self.open: OrderedDict[int, Shard] = OrderedDict()
        self.held = {self._opened(int(self.shard[row])).ids[self.place[row]] for row in range(self.taught, len(self))}

    def __len__(self) -> int:
        return len(self.place)

    @property
    def taught(self) -> int:
        return taught_of(len(self))

    def rows(self, rows: Sequence[int]) -> Lessons:
        found = [self._row(row) for row in rows]
        ids, prompts, targets, sources, contexts, pooled = zip(*found)
        context = self.padding.expand(len(rows), -1, -1).clone()
        for row, own in zip(context, contexts):
            row[: len(own)] = own
        target, source = torch.stack(targets).float(), torch.stack(sources).float()
        return Lessons(self.task, ids, prompts, target, source, context, torch.stack(pooled))

    def _row(self, row: int) -> tuple:
        number, place = int(self.shard[row]), int(self.place[row])
        shard = self._opened(number)
        starts = [0, *accumulate(count for _, count in self.entries[number].kinds)]
        bucket = bisect(starts, place) - 1
        if row < self.taught:
            place = self._unseen(shard, place, starts[bucket], starts[bucket + 1])
        latents = (shard.tensors[f"{name}.{bucket}"][place - starts[bucket]] for name in ("target", "source"))
        context = shard.tensors["context"][shard.starts[place] : shard.starts[place + 1]]
        return shard.ids[place], shard.prompts[place], *latents, context, shard.tensors["pooled"][place]

    def _unseen(self, shard: Shard, place: int, first: int, end: int) -> int:
        """The place, or a neighbour's of the same kind: other looks at a picture that is held out teach nothing."""
        others = (first + (place - first + i) % (end - first) for i in range(end - first))
        return next((one for one in others if shard.ids[one] not in self.held), place)

    def _opened(self, number: int) -> Shard:
        if number in self.open:
            self.open.move_to_end(number)
            return self.open[number]
        self.open[number] = shard = open_shard(self.folder / self.entries[number].file)
        if len(self.open) > OPEN:
            self.open.popitem(last=False)
        return shard


def empty_of(folder: Path) -> tuple[Tensor, Tensor]:
    """The empty prompt, as its encoders make it."""
    refuse_missing(folder)
    file = SafeFile(folder / EMPTY)
    return file["context"], file["pooled"]


def open_shard(path: Path) -> Shard:
    try:
        file = SafeFile(path)
        texts = json.loads(file.metadata[KEY])
        starts = [0, *accumulate(texts["tokens"])]
        return Shard({name: file[name] for name in file}, texts["ids"], texts["prompts"], starts)
    except (KeyError, ValueError) as error:
        raise ValueError(f"The shard {path} is torn ({error}): delete it, and {AGAIN}.") from None


def open_cached(folder: Path, task: str, note: Path, about: Mapping[str, Any]) -> CachedSet:
    """What there is now, if it is as `about` says; a run that goes on takes what it began with, which `note` says."""
    refuse_missing(folder)
    advice = "train with the models and the size that made them, or cache again elsewhere"
    found = refuse_other(folder / ABOUT, about, HOLDS, advice)
    there = {entry.file: entry for entry in all_entries(folder)}
    begun = read_json(note) if note.exists() else list(there)
    missing = [file for file in begun if file not in there or not there[file].whole(folder)]
    if missing:
        raise ValueError(f"The shard {missing[0]} in {folder} is missing or torn ({len(missing)} in all): {AGAIN}.")
    count = sum(count for file in begun for _, count in there[file].kinds)
    if count < 2:
        raise ValueError(f"The cache in {folder} holds {count} samples yet, expected two or more: wait for a shard.")
    holds, advice = "a run on samples that were made otherwise", "cache them as they were, or begin anew elsewhere"
    claim(note.with_name(f"{note.stem}-of.json"), found, holds, advice)
    if not note.exists():
        write_json(note, begun)
    return CachedSet(task, folder, [there[file] for file in begun])


def refuse_missing(folder: Path) -> None:
    if not (folder / ABOUT).exists():
        raise ValueError(f"There is no cache in {folder}: make it with cologen data cache, or name another.")


class CachedLessons:
    """Lessons of a task from several places, cached or in memory; each holds out its own last ones.

    Those taught lie bucket by bucket. Of those held out, the largest bucket comes first.
    """

    def __init__(self, parts: Sequence[CachedSet | Lessons]):
        self.parts, self.task = parts, parts[0].task
        kinds = [kinds_of(part) for part in parts]
        known = list(dict.fromkeys(kind for names, _ in kinds for kind in names))
        numbers = [np.array([known.index(kind) for kind in names])[each] for names, each in kinds]
        ends = [(0, part.taught) for part in parts] + [(part.taught, len(part)) for part in parts]
        runs = [(i % len(parts), np.arange(*end)) for i, end in enumerate(ends)]
        part = np.concatenate([np.full(len(rows), i) for i, rows in runs])
        row = np.concatenate([rows for _, rows in runs])
        kind = np.concatenate([numbers[i][rows] for i, rows in runs])
        self.taught = sum(part.taught for part in parts)
        frequent = np.bincount(kind[self.taught :], minlength=len(known))
        order = np.concatenate([
            np.argsort(kind[: self.taught], kind="stable"),
            self.taught + np.argsort(-frequent[kind[self.taught :]], kind="stable"),
        ])  # fmt: skip
        self.part, self.row, self.kind = part[order], row[order], kind[order]
        counts = np.bincount(self.kind[: self.taught], minlength=len(known))
        self.buckets = tuple(int(count) for count in counts if count)
        self.tokens = max(part.context.shape[1] if isinstance(part, Lessons) else part.tokens for part in parts)

    def __len__(self) -> int:
        return len(self.row)

    def bucket(self, row: int) -> int:
        return int(self.kind[row])

    def rows(self, rows: Sequence[int]) -> Lessons:
        places = [[j for j, row in enumerate(rows) if self.part[row] == i] for i in range(len(self.parts))]
        found = [part.rows([int(self.row[rows[j]]) for j in some]) for part, some in zip(self.parts, places) if some]
        lessons = found[0]
        if len(found) > 1:
            lessons = in_row(found).rows(np.argsort([j for some in places for j in some]).tolist())
        return replace(lessons, context=padded(lessons.context, self.tokens))


def kinds_of(part: CachedSet | Lessons) -> tuple[list[Kind], np.ndarray]:
    """Those that it has, and each sample's."""
    if isinstance(part, CachedSet):
        return part.kinds, part.kind
    return [(tuple(part.target.shape[1:]), tuple(part.source.shape[1:]))], np.zeros(len(part), int)
