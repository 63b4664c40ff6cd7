"""What a cache will take on the disk, told before anything is written."""

import shutil
from pathlib import Path
from typing import NamedTuple

from .encode import SPARE, Cache

LOOKED = 64
"""Examples from which the size of all is estimated."""


class Estimate(NamedTuple):
    """What a set takes on the disk."""

    sample: float
    """Bytes of one."""
    samples: int | None
    """How many there will be, if that can be told."""
    there: int
    """Bytes that are there already."""

    def __str__(self) -> str:
        told = f"{self.sample / 2**20:.2f} MiB a sample, {gib(1e5 * self.sample)} for 100 000"
        return told + (f", {gib(self.samples * self.sample)} for all {self.samples}" if self.samples else "")

    @property
    def missing(self) -> float:
        return max(0.0, (self.samples or 0) * self.sample - self.there)


def gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def estimate(cache: Cache, there: int) -> Estimate:
    """From some examples, of which one picture and the empty prompt are encoded."""
    some = [example for example, _ in zip(cache.examples().epoch(), range(LOOKED))]
    if not some:
        raise ValueError(f"{cache.source.name} has no example for {cache.task}: see what cologen data check says.")
    first = cache.codec.encode([some[0].target])
    context, pooled = cache.codec.texts([""])
    lengths = cache.codec.lengths([one.prompt for one in some]) if cache.trim else [context.shape[1]]
    pixels = sum(one.target[..., 0].size + one.source[..., 0].size for one in some) / len(some)
    latents = pixels * first.numel() / some[0].target[..., 0].size
    words = sum(lengths) / len(lengths) * context.shape[-1]
    rows, knobs = cache.source.reader.count(), cache.source.knobs
    samples = knobs.examples or (rows and rows * knobs.variants)
    return Estimate(2 * (latents + words) + 4 * pooled.shape[-1], samples, there)


def refuse_full(folder: Path, missing: float) -> None:
    place = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(place).free
    if missing + SPARE > free:
        raise OSError(
            f"{gib(missing)} are still to be written, the disk of {folder} has {gib(free)} left: make room, choose "
            f"another folder, or set fewer examples, variants or pixels."
        )
