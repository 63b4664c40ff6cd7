"""Encoded examples of one task, and batches of them."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ....prw.files.safe_file import SafeFile
from ....prw.files.safetensors_writer import write
from ....prw.personalization.marked_prompt import MarkedTokens
from ...objective import draw_times
from ..batch_sampler import Slot
from ..sample import Example

LEAST_HELD_OUT, MOST_HELD_OUT = 1, 64
TENSORS = ("target", "source", "context", "pooled")


class Codec(Protocol):
    """What turns pictures and words into what FLUX reads, and latents back into pictures."""

    def encode(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """uint8 (height, width, 3) each, all of one size, to latents as the VAE gives them."""

    def texts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Context (batch, tokens, width) and pooled (batch, width)."""

    def words(self, prompt: str) -> MarkedTokens:
        """Which rows of its context the words in brackets are: a [dog] on the beach."""

    def decode(self, latents: Tensor) -> np.ndarray:
        """uint8 (batch, height, width, 3)."""

    def identity(self) -> Any:
        """What decides its answers, for JSON."""


class Shelf(Protocol):
    """Lessons of a task, in memory (Lessons) or on disk (cache/lessons.py)."""

    task: str
    taught: int
    buckets: tuple[int, ...]
    """How many of those taught are of each size: they lie one bucket after the other."""

    def __len__(self) -> int: ...

    def bucket(self, row: int) -> int: ...

    def rows(self, rows: Sequence[int]) -> "Lessons":
        """In memory; all of one bucket."""


def taught_of(count: int) -> int:
    return max(1, count - min(max(LEAST_HELD_OUT, count // 10), MOST_HELD_OUT))


@dataclass(frozen=True, eq=False)
class Lessons:
    """The last few are held out of training, for validation and samples."""

    task: str
    ids: tuple[str, ...]
    prompts: tuple[str, ...]
    target: Tensor
    source: Tensor
    context: Tensor
    pooled: Tensor
    held: int | None = None
    """How many are held out, if cuts of a picture had to stay together."""
    pixels: str = ""
    """A hash of what was encoded, where it is known: latents differ in their last bits from one device to another."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def taught(self) -> int:
        """How many are for training: the first of them."""
        return taught_of(len(self)) if self.held is None else len(self) - self.held

    @property
    def buckets(self) -> tuple[int, ...]:
        return (self.taught,)

    def bucket(self, row: int) -> int:
        return 0

    def rows(self, rows: Sequence[int]) -> "Lessons":
        texts = {name: tuple(getattr(self, name)[row] for row in rows) for name in ("ids", "prompts")}
        return Lessons(self.task, **texts, **{name: getattr(self, name)[list(rows)] for name in TENSORS})

    def save(self, path: str | os.PathLike) -> None:
        tensors = {name: getattr(self, name) for name in TENSORS}
        texts = {"task": self.task, "ids": "\n".join(self.ids), "prompts": "\n".join(self.prompts)}
        texts |= {} if self.held is None else {"held": str(self.held)}
        write(path, tensors, texts)


def encode(codec: Codec, task: str, examples: Iterable[Example], chunk: int = 32, progress=None) -> Lessons:
    """Examples through the encoders, a few at a time: no more pictures than that are in memory."""
    parts, ids, prompts, examples = [], [], [], iter(examples)
    while some := list(islice(examples, chunk)):
        with torch.no_grad():
            target = codec.encode([example.target for example in some])
            source = codec.encode([example.source for example in some])
            parts.append((target, source, *codec.texts([example.prompt for example in some])))
        ids += [example.id for example in some]
        prompts += [example.prompt.replace("\n", " ") for example in some]
        if progress is not None:
            progress(len(ids))
    if len(ids) < 2:
        raise ValueError(f"{task} has {len(ids)} examples, expected two or more: add data.")
    target, source, context, pooled = zip(*parts)
    context = torch.cat([padded(part, max(each.shape[1] for each in context)) for part in context])
    lessons = Lessons(
        task, tuple(ids), tuple(prompts), torch.cat(target), torch.cat(source), context, torch.cat(pooled)
    )
    return holding_out(lessons, last_pictures(ids))


def last_pictures(ids: Sequence[str]) -> set[str]:
    """Whole pictures, however many cuts there are of each; none, where that would leave none to learn from."""
    cuts, wanted, found = Counter(ids), len(ids) - taught_of(len(ids)), set()
    for id in reversed(cuts):
        if sum(cuts[one] for one in found) >= wanted:
            break
        found.add(id)
    return found if len(found) < len(cuts) else set()


def holding_out(lessons: Lessons, pictures: Set[str]) -> Lessons:
    """With these pictures' cuts behind all others."""
    last = [id in pictures for id in lessons.ids]
    if not any(last) or all(last):
        return lessons
    order = sorted(range(len(last)), key=last.__getitem__)
    ordered = lessons if last == sorted(last) else lessons.rows(order)
    return replace(ordered, held=sum(last), pixels=lessons.pixels)


def joined(a: Lessons, b: Lessons) -> Lessons:
    """Lessons of one task from two places; what either holds out is held out of both."""
    if a.target.shape[1:] != b.target.shape[1:]:
        sizes = [f"{lessons.target.shape[-1] * 8} x {lessons.target.shape[-2] * 8}" for lessons in (a, b)]
        raise ValueError(f"The data of {a.task} is {' and '.join(sizes)} pixels, expected one size: set both alike.")
    return holding_out(in_row([a, b]), {id for one in (a, b) for id in one.ids[one.taught :]})


def in_row(parts: Sequence[Lessons]) -> Lessons:
    longest = max(part.context.shape[1] for part in parts)
    parts = [replace(part, context=padded(part.context, longest)) for part in parts]
    texts = {name: sum((getattr(part, name) for part in parts), ()) for name in ("ids", "prompts")}
    tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name in TENSORS}
    return Lessons(parts[0].task, **texts, **tensors, pixels="".join(part.pixels for part in parts))


def padded(context: Tensor, tokens: int) -> Tensor:
    """Longer prompts have more tokens; shorter ones get zeros behind."""
    if tokens == context.shape[1]:
        return context
    return torch.nn.functional.pad(context, (0, 0, 0, tokens - context.shape[1]))


class Batch(NamedTuple):
    """Samples of one task, ready for FLUX."""

    task: str
    ids: tuple[str, ...]
    target: Tensor
    source: Tensor
    context: Tensor
    pooled: Tensor
    times: Tensor
    noise: Tensor
    seeds: tuple[int, ...]
    rows: tuple[int, ...] = ()
    """Which lessons they are."""


def batch_of(
    shelf: Shelf,
    some: Sequence[Slot],
    empty: tuple[Tensor, Tensor],
    text_drop: float,
    shift: float = 1.0,
    opened: float = 1.0,
) -> Batch:
    """The slots' lessons with their times and noise; some prompts become the empty one."""
    lessons = shelf.rows([slot.index for slot in some])
    context, pooled = lessons.context, lessons.pooled
    times, noise = torch.empty(len(some)), torch.empty_like(lessons.target, dtype=torch.float32)
    for j, slot in enumerate(some):
        generator = torch.Generator().manual_seed(slot.seed)
        times[j] = draw_times(1, generator, shift=shift, opened=opened)[0]
        dropped = torch.rand((), generator=generator) < text_drop
        noise[j] = torch.randn(noise.shape[1:], generator=generator)
        if dropped:
            context[j], pooled[j] = padded(empty[0], context.shape[1])[0, : context.shape[1]], empty[1][0]
    seeds = tuple(slot.seed for slot in some)
    latents, places = (lessons.target, lessons.source), tuple(slot.index for slot in some)
    return Batch(lessons.task, lessons.ids, *latents, context, pooled, times, noise, seeds, places)


def load_lessons(path: str | os.PathLike) -> Lessons:
    file = SafeFile(path)
    ids, prompts = (tuple(file.metadata[name].split("\n")) for name in ("ids", "prompts"))
    held = int(file.metadata["held"]) if "held" in file.metadata else None
    return Lessons(file.metadata["task"], ids, prompts, **{name: file[name] for name in TENSORS}, held=held)
