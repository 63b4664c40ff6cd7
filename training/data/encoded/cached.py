"""Datasets that stay on disk: rows of memory-mapped shards, read when an iteration asks for them.

Any row can be read at any time, so that the order of samples is the one that datasets in memory have
(batch_sampler.py): no buffer to fill, no place to keep. A row lies together, as a few hundred KiB; that is what a disk
reads well.
"""

import json
from bisect import bisect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ....prw.files.safe_file import SafeFile
from ....prw.files.validate import check_type, shorten
from ...checkpoint.folder_guard import check_record, claim_folder
from .cache_index import ABOUT, EMPTY, HOLDS, KEY, ShardEntry, read_all_entries, read_json, write_json
from .dataset import LatentShapes, MemoryDataset, default_train_count, hold_out
from .samples import EncodedSamples, concat_samples, pad_context

MAX_OPEN = 512
"""Shards that are mapped at once."""
AGAIN = "give the same cologen data cache again, which makes anew what is missing"


class Shard(NamedTuple):
    tensors: dict[str, Tensor]
    ids: list[str]
    prompts: list[str]
    starts: list[int]
    """Where each sample's tokens begin in `context`, and where the last one's end."""


class CachedDataset:
    """One cache folder's samples in the order of its files: those that were there when the run began."""

    def __init__(self, task: str, folder: Path, entries: Sequence[ShardEntry]):
        self.task, self.folder, self.entries = task, folder, entries
        self.shapes: list[LatentShapes] = list(dict.fromkeys(shapes for entry in entries for shapes, _ in entry.kinds))
        runs = [(number, *run) for number, entry in enumerate(entries) for run in entry.kinds]
        counts = [count for *_, count in runs]
        self.shape_numbers = np.repeat([self.shapes.index(shapes) for _, shapes, _ in runs], counts)
        # by sample: the shard's number, and the row in it
        self.shard_of_sample = np.repeat([number for number, *_ in runs], counts)
        sizes = [sum(count for _, count in entry.kinds) for entry in entries]
        self.row_in_shard = np.concatenate([np.arange(size) for size in sizes])
        empty, pooled = load_empty_prompt(folder)
        self.widths = empty.shape[2], pooled.shape[1]
        """Of a prompt's tokens, and of its vector."""
        min_length = empty.shape[1] if read_json(folder / ABOUT).get("trimmed") else 0
        self.context_length = max(min_length, *(entry.tokens for entry in entries))
        # padding was trimmed: in its place stands what the text encoder makes of the empty prompt's
        self.padding = pad_context(empty[:, :min_length], self.context_length)[0]
        self.open_shards: OrderedDict[int, Shard] = OrderedDict()
        val_rows = range(self.train_count, len(self))
        self.val_ids = {
            self._open_shard(int(self.shard_of_sample[row])).ids[self.row_in_shard[row]] for row in val_rows
        }

    def __len__(self) -> int:
        return len(self.row_in_shard)

    @property
    def train_count(self) -> int:
        return default_train_count(len(self))

    def read_samples(self, indices: Sequence[int]) -> EncodedSamples:
        """Reads samples of one size; latents become float32, contexts are padded to `context_length`."""
        ids, prompts, targets, sources, contexts, pooled = zip(*(self._row(index) for index in indices))
        context = self.padding.expand(len(indices), -1, -1).clone()
        for row, unpadded in zip(context, contexts):
            row[: len(unpadded)] = unpadded
        target, source = torch.stack(targets).float(), torch.stack(sources).float()
        return EncodedSamples(ids, prompts, target, source, context, torch.stack(pooled))

    def _row(self, index: int) -> tuple[str, str, Tensor, Tensor, Tensor, Tensor]:
        number, row = int(self.shard_of_sample[index]), int(self.row_in_shard[index])
        shard = self._open_shard(number)
        starts = [0, *accumulate(count for _, count in self.entries[number].kinds)]
        group = bisect(starts, row) - 1
        if index < self.train_count:
            row = self._avoid_val(shard, row, starts[group], starts[group + 1])
        target, source = (shard.tensors[f"{name}.{group}"][row - starts[group]] for name in ("target", "source"))
        context = shard.tensors["context"][shard.starts[row] : shard.starts[row + 1]]
        return shard.ids[row], shard.prompts[row], target, source, context, shard.tensors["pooled"][row]

    def _avoid_val(self, shard: Shard, row: int, first: int, end: int) -> int:
        """Returns the row, or the next of its size (rows `first` to `end`) whose picture is not held out.

        Other crops of a held-out picture must not be trained on.
        """
        rows = (first + (row - first + i) % (end - first) for i in range(end - first))
        return next((other for other in rows if shard.ids[other] not in self.val_ids), row)

    def avoid(self, val_ids: set[str]) -> "CachedDataset":
        """Gives the same samples, where those to train on show none of these pictures."""
        other = copy(self)
        other.val_ids = val_ids
        return other

    def _open_shard(self, number: int) -> Shard:
        if number in self.open_shards:
            self.open_shards.move_to_end(number)
            return self.open_shards[number]
        entry = self.entries[number]
        shard = open_shard(self.folder / entry.file)
        check_shard(shard, entry, self.widths, self.folder)
        self.open_shards[number] = shard
        if len(self.open_shards) > MAX_OPEN:
            self.open_shards.popitem(last=False)
        return shard


def load_empty_prompt(folder: Path) -> tuple[Tensor, Tensor]:
    """Reads context and pooled of the empty prompt, as the cache's encoders made them."""
    check_cache(folder)
    file = SafeFile(folder / EMPTY)
    found = {name: file[name] for name in ("context", "pooled") if name in file}
    if [(name, tensor.ndim, len(tensor)) for name, tensor in found.items()] != [("context", 3, 1), ("pooled", 2, 1)]:
        raise ValueError(
            f"{file.path} holds no empty prompt, expected its context and pooled: delete {folder}, and {AGAIN}."
        )
    return found["context"], found["pooled"]


def open_shard(path: Path) -> Shard:
    """Maps a shard and reads its texts."""
    try:
        file = SafeFile(path)
        texts = json.loads(file.metadata[KEY])
        counts, ids, prompts = (check_type(name, texts[name], list) for name in ("tokens", "ids", "prompts"))
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("counts of tokens that are none")
        if not all(isinstance(text, str) for text in (*ids, *prompts)):
            raise ValueError("texts that are none")
        return Shard({name: file[name] for name in file}, ids, prompts, [0, *accumulate(counts)])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"The shard {path} is torn ({shorten(error)}): delete it, and {AGAIN}.") from None


def check_shard(shard: Shard, entry: ShardEntry, widths: tuple[int, int], folder: Path) -> None:
    """Checks that a shard holds what its list says: so many samples, of these shapes."""
    count = sum(number for _, number in entry.kinds)
    expected = {"context": (shard.starts[-1], widths[0]), "pooled": (count, widths[1])}
    for group, (shapes, number) in enumerate(entry.kinds):
        expected |= {f"{name}.{group}": (number, *shape) for name, shape in zip(("target", "source"), shapes)}
    tokens = [end - start for start, end in pairwise(shard.starts)]
    are_right = (
        len(shard.ids) == len(shard.prompts) == len(tokens) == count,
        max(tokens, default=0) <= entry.tokens,
        {name: tuple(tensor.shape) for name, tensor in shard.tensors.items()} == expected,
    )
    if not all(are_right):
        raise ValueError(
            f"The shard {folder / entry.file} holds other samples than its list says: delete it, and {AGAIN}."
        )


def open_cached(folder: Path, task: str, shard_list_file: Path, expected: Mapping[str, Any]) -> CachedDataset:
    """Opens the shards that there are now, if cache.json agrees with `expected`.

    A run that goes on opens those it began with: `shard_list_file` is the file of the run that lists them.
    """
    check_cache(folder)
    advice = "train with the models and the size that made them, or cache again elsewhere"
    about = check_record(folder / ABOUT, expected, HOLDS, advice)
    entries = {entry.file: entry for entry in read_all_entries(folder)}
    files = read_json(shard_list_file) if shard_list_file.exists() else list(entries)
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise ValueError(f"{shard_list_file} is no list of shards, expected what the run wrote: begin another run.")
    missing = [file for file in files if file not in entries or not entries[file].is_whole(folder)]
    if missing:
        raise ValueError(f"The shard {missing[0]} in {folder} is missing or torn ({len(missing)} in all): {AGAIN}.")
    count = sum(count for file in files for _, count in entries[file].kinds)
    if count < 2:
        raise ValueError(f"The cache in {folder} holds {count} samples yet, expected two or more: wait for a shard.")
    holds, advice = "a run on samples that were made otherwise", "cache them as they were, or begin anew elsewhere"
    claim_folder(shard_list_file.with_name(f"{shard_list_file.stem}-of.json"), about, holds, advice)
    if not shard_list_file.exists():
        write_json(shard_list_file, files)
    return CachedDataset(task, folder, [entries[file] for file in files])


def check_cache(folder: Path) -> None:
    if not (folder / ABOUT).exists():
        raise ValueError(f"There is no cache in {folder}: make it with cologen data cache, or name another.")


def hold_out_of_all(parts: Sequence[CachedDataset | MemoryDataset]) -> list[CachedDataset | MemoryDataset]:
    """Gives the parts without looks at pictures that another of them holds out."""
    val_ids = set().union(*(part.val_ids for part in parts))
    return [hold_out(part, val_ids) if isinstance(part, MemoryDataset) else part.avoid(val_ids) for part in parts]


class JoinedDataset:
    """An EncodedDataset of several parts, cached or in memory; pictures that one of them holds out are held out of all.

    Samples to train on lie bucket by bucket. Of those held out, the largest bucket comes first.
    """

    def __init__(self, parts: Sequence[CachedDataset | MemoryDataset]):
        parts = hold_out_of_all(parts)
        self.parts, self.task = parts, parts[0].task
        self.train_count = sum(part.train_count for part in parts)
        shapes = list(dict.fromkeys(shapes for part in parts for shapes in part.shapes))
        numbers = [np.array([shapes.index(pair) for pair in part.shapes])[part.shape_numbers] for part in parts]
        ranges = [(0, part.train_count) for part in parts] + [(part.train_count, len(part)) for part in parts]
        runs = [(i % len(parts), np.arange(*ends)) for i, ends in enumerate(ranges)]
        part = np.concatenate([np.full(len(rows), i) for i, rows in runs])
        row = np.concatenate([rows for _, rows in runs])
        number = np.concatenate([numbers[i][rows] for i, rows in runs])
        train, val = number[: self.train_count], number[self.train_count :]
        frequency = np.bincount(val, minlength=len(shapes))
        order = np.concatenate([
            np.argsort(train, kind="stable"),
            self.train_count + np.argsort(-frequency[val], kind="stable"),
        ])  # fmt: skip
        self.part, self.row, self.number = part[order], row[order], number[order]
        counts = np.bincount(self.number[: self.train_count], minlength=len(shapes))
        self.buckets = tuple(int(count) for count in counts if count)
        self.context_length = max(part.context_length for part in parts)

    def __len__(self) -> int:
        return len(self.row)

    def find_bucket(self, index: int) -> int:
        return int(self.number[index])

    def read_samples(self, indices: Sequence[int]) -> EncodedSamples:
        places = [[j for j, index in enumerate(indices) if self.part[index] == i] for i in range(len(self.parts))]
        read = [
            part.read_samples([int(self.row[indices[j]]) for j in rows])
            for part, rows in zip(self.parts, places)
            if rows
        ]
        samples = read[0]
        if len(read) > 1:
            samples = concat_samples(read).rows(np.argsort([j for rows in places for j in rows]).tolist())
        return replace(samples, context=pad_context(samples.context, self.context_length))
