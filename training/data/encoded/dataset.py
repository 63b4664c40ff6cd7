"""Datasets of encoded samples, as the loop reads them: here in memory, in cached.py on disk.

The first `train_count` samples are trained on, the others are held out for validation and sample pictures. What is
held out is whole pictures: several cuts of one picture lie on one side.
"""

import os
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from torch import Tensor

from ....prw.files.safe_file import SafeFile
from ....prw.files.safetensors_writer import write_safetensors
from ....prw.flux.families import find_latent_family
from .samples import TENSORS, EncodedSamples, concat_samples

MIN_VAL, MAX_VAL = 1, 64
LatentShapes = tuple[tuple[int, ...], tuple[int, ...]]
"""Shapes of a target's and a source's latents: samples that share them can be in one batch."""


class EncodedDataset(Protocol):
    """Encoded samples of one task; those to train on first, one bucket (size) after the other."""

    @property
    def task(self) -> str: ...

    @property
    def train_count(self) -> int: ...

    @property
    def buckets(self) -> tuple[int, ...]:
        """How many samples to train on each bucket has."""

    def __len__(self) -> int: ...

    def find_bucket(self, index: int) -> int:
        """Finds the number of a sample's bucket."""

    def read_samples(self, indices: Sequence[int]) -> EncodedSamples:
        """Reads samples of one bucket into memory."""


def default_train_count(count: int) -> int:
    """Gives how many of `count` samples to train on: all but a tenth, of which 1 to 64 are held out (our choice)."""
    return max(1, count - min(max(MIN_VAL, count // 10), MAX_VAL))


@dataclass(frozen=True, eq=False)
class MemoryDataset:
    """An EncodedDataset in memory, of one size."""

    task: str
    samples: EncodedSamples
    val_count: int | None = None
    """How many samples, the last ones, are held out; None: as default_train_count has it."""
    pixel_hash: str = ""
    """Of the pictures before they were encoded, where known: latents differ in their last bits between devices."""

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def train_count(self) -> int:
        return default_train_count(len(self)) if self.val_count is None else len(self) - self.val_count

    @property
    def buckets(self) -> tuple[int, ...]:
        return (self.train_count,)

    @property
    def context_length(self) -> int:
        """How many tokens a prompt's context has."""
        return self.samples.context.shape[1]

    @property
    def val_ids(self) -> set[str]:
        """Pictures that are held out."""
        return set(self.samples.ids[self.train_count :])

    @property
    def shapes(self) -> list[LatentShapes]:
        """All that occur: one."""
        return [(tuple(self.samples.target.shape[1:]), tuple(self.samples.source.shape[1:]))]

    @property
    def shape_numbers(self) -> np.ndarray:
        """For each sample, which of `shapes` it has."""
        return np.zeros(len(self), int)

    def find_bucket(self, index: int) -> int:
        return 0

    def read_samples(self, indices: Sequence[int]) -> EncodedSamples:
        return self.samples.rows(indices)

    def save(self, path: str | os.PathLike) -> None:
        samples = self.samples
        texts = {"task": self.task, "ids": "\n".join(samples.ids), "prompts": "\n".join(samples.prompts)}
        texts |= {} if self.val_count is None else {"held": str(self.val_count)}
        write_safetensors(path, {name: getattr(samples, name) for name in TENSORS}, texts)


DELETE = "delete it, and the run makes it again"


def load_dataset(path: str | os.PathLike) -> MemoryDataset:
    """Reads what MemoryDataset.save wrote."""
    file = SafeFile(path)
    try:
        ids, prompts = (tuple(file.metadata[name].split("\n")) for name in ("ids", "prompts"))
        samples = EncodedSamples(ids, prompts, *(file[name] for name in TENSORS))
        val_count = int(file.metadata["held"]) if "held" in file.metadata else None
        dataset = MemoryDataset(file.metadata["task"], samples, val_count)
    except (KeyError, ValueError):
        raise ValueError(f"{path} holds no samples, expected what a run wrote: {DELETE}.") from None
    dims = {name: getattr(samples, name).ndim for name in TENSORS}
    counts = {len(ids), len(prompts), *(len(getattr(samples, name)) for name in TENSORS if dims[name])}
    is_right = dims == {"target": 4, "source": 4, "context": 3, "pooled": 2} and len(counts) == 1
    if not is_right or not 0 <= (val_count or 0) < len(ids):
        raise ValueError(f"{path} holds samples that do not fit together, expected what a run wrote: {DELETE}.")
    return dataset


def choose_val_ids(ids: Sequence[str]) -> set[str]:
    """Chooses pictures to hold out: the last ones, until they have as many samples as default_train_count leaves out.

    `ids` are the samples' pictures, several samples may share one. Chooses none if it were all of them.
    """
    cuts, wanted, val_ids = Counter(ids), len(ids) - default_train_count(len(ids)), set()
    for id in reversed(cuts):
        if sum(cuts[chosen] for chosen in val_ids) >= wanted:
            break
        val_ids.add(id)
    return val_ids if len(val_ids) < len(cuts) else set()


def hold_out(dataset: MemoryDataset, val_ids: Set[str]) -> MemoryDataset:
    """Moves these pictures' samples behind all others and holds them out, unless that is none or all."""
    is_val = [id in val_ids for id in dataset.samples.ids]
    if not any(is_val) or all(is_val):
        return dataset
    order = sorted(range(len(is_val)), key=is_val.__getitem__)
    samples = dataset.samples if is_val == sorted(is_val) else dataset.samples.rows(order)
    return replace(dataset, samples=samples, val_count=sum(is_val))


def describe_size(latents: Tensor) -> str:
    pixels = find_latent_family(latents).latent_pixels
    return f"{latents.shape[-1] * pixels} x {latents.shape[-2] * pixels}"


def concat_datasets(a: MemoryDataset, b: MemoryDataset) -> MemoryDataset:
    """Joins two of one task and size; pictures that either holds out are held out of both."""
    both = (a, b)
    if a.samples.target.shape[1:] != b.samples.target.shape[1:]:
        sizes = [describe_size(part.samples.target) for part in both]
        raise ValueError(f"The data of {a.task} is {' and '.join(sizes)} pixels, expected one size: set both alike.")
    samples = concat_samples([part.samples for part in both])
    return hold_out(MemoryDataset(a.task, samples, pixel_hash=a.pixel_hash + b.pixel_hash), a.val_ids | b.val_ids)
