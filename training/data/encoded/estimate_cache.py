"""What a cache will take on the disk, known before anything is written."""

import shutil
from pathlib import Path
from typing import NamedTuple

from .cache_writer import MIN_FREE, CacheWriter

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
        text = f"{self.sample / 2**20:.2f} MiB a sample, {format_gib(1e5 * self.sample)} for 100 000"
        return text + (f", {format_gib(self.samples * self.sample)} for all {self.samples}" if self.samples else "")

    @property
    def missing(self) -> float:
        """Bytes still to be written."""
        return max(0.0, (self.samples or 0) * self.sample - self.there)


def format_gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def estimate_cache(writer: CacheWriter, there: int) -> Estimate:
    """Looks at some examples, of which one picture and the empty prompt are encoded."""
    examples = [example for example, _ in zip(writer.open_examples().iterate_epoch(), range(LOOKED))]
    if not examples:
        raise ValueError(f"{writer.dataset.name} has no example for {writer.task}: see what cologen data check says.")
    first = writer.encoders.encode([examples[0].target])
    context, pooled = writer.encoders.encode_prompts([""])
    prompts = [example.prompt for example in examples]
    tokens = (writer.encoders.count_tokens(prompts) if writer.trim else None) or [context.shape[1]]
    pixels = sum(example.target[..., 0].size + example.source[..., 0].size for example in examples) / len(examples)
    latents = pixels * first.numel() / examples[0].target[..., 0].size
    text = sum(tokens) / len(tokens) * context.shape[-1]
    rows, knobs = writer.dataset.reader.count_rows(), writer.dataset.knobs
    samples = knobs.examples or (rows and rows * knobs.variants)
    return Estimate(2 * (latents + text) + 4 * pooled.shape[-1], samples, there)


def check_free(folder: Path, missing: float) -> None:
    """Refuses a disk that has too little room for so many bytes."""
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if missing + MIN_FREE > free:
        raise OSError(
            f"{format_gib(missing)} are still to be written, the disk of {folder} has {format_gib(free)} left: make room, "
            f"choose another folder, or set fewer examples, variants or pixels."
        )
