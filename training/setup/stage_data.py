"""Lessons by stage, from the toy world, data sets or their cache: made when a stage first asks, and kept in the run's folder."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from ...prw.files.validate import one_of, typed
from ...prw.tasks import TASKS
from ..data.encoded.cached import CachedLessons, CachedSet, open_cached
from ..data.encoded.dataset import Codec, Lessons, Shelf, encode, joined, load_lessons
from ..data.encoded.index import folder_of
from ..data.sets import Source, open_source
from ..recipes.curriculum import Curriculum, Stage
from ..recipes.subject import OWN

TOY = "toy"
Progress = Callable[[str, int, int], None]
"""Hears what is made, how much is done, and of how much (0: nobody knows)."""


class Part(NamedTuple):
    """Lessons that come from one place."""

    file: str
    """Says everything that they depend on."""
    make: Callable[[Progress], Lessons]

    def opened(self, folder: Path, progress: Progress) -> Lessons:
        path = folder / f"{self.file}.safetensors"
        if path.exists():
            return load_lessons(path)
        lessons = self.make(progress)
        lessons.save(path)
        return lessons


class CachedPart(NamedTuple):
    """Lessons that stay where `cologen data cache` left them; the run's folder says which of them it takes."""

    file: str
    task: str
    cache: Path
    about: Mapping[str, Any]
    """What its samples must be."""

    def opened(self, folder: Path, progress: Progress) -> CachedSet:
        return open_cached(self.cache, self.task, folder / f"{self.file}.json", self.about)


class KeptLessons(Mapping):
    """By stage; stages that name the same share it."""

    def __init__(self, parts: Mapping[str, Sequence[Part | CachedPart]], folder: Path, progress: Progress):
        self.parts, self.folder, self.progress = parts, folder, progress
        self.open: dict[tuple[str, ...], Shelf] = {}

    def __getitem__(self, stage: str) -> Shelf:
        parts = self.parts[stage]
        names = tuple(part.file for part in parts)
        if names not in self.open:
            self.open[names] = together([part.opened(self.folder, self.progress) for part in parts])
        return self.open[names]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def together(parts: Sequence[Lessons | CachedSet]) -> Shelf:
    """In memory, if all of it is."""
    if any(isinstance(part, CachedSet) for part in parts):
        return CachedLessons(parts)
    return reduce(joined, parts)


def parts_of(curriculum: Curriculum, count: int, codec: Codec, seed: int) -> dict[str, list[Part | CachedPart]]:
    """By stage: what it names, or the toy world; `count` is how many of that."""

    def part(stage: Stage, name: str) -> Part | CachedPart:
        if name == TOY:
            one_of(f"{stage.name}.task", stage.task, (*TASKS, OWN))  # all that the built-in world can ask
            return toy_part(stage.task, count, codec, seed)
        size = curriculum.settings.resolution
        if cache := cache_of(curriculum, name):
            about = {"encoders": codec.identity(), "size": size}
            return CachedPart(f"{stage.task}-{name}-cached", stage.task, folder_of(cache, stage.task, name), about)
        return set_part(stage, source_of(curriculum, stage, name), codec, size, seed)

    return {stage.name: [part(stage, name) for name in stage.data or (TOY,)] for stage in curriculum.stages}


def cache_of(curriculum: Curriculum, name: str) -> str:
    """Where a set's table says that its encoded samples lie; then the set itself need not be on this machine."""
    return typed(f"data.{name}.cache", curriculum.data.get(name, {}).get("cache", ""), str)


def source_of(curriculum: Curriculum, stage: Stage, name: str) -> Source:
    if name not in curriculum.data:
        raise ValueError(
            f'The stage {stage.name} names the data set {name}, of which the recipe says no more: add a table [data."{name}"] '
            f"with its path (docs/data.md)."
        )
    return open_source(name, curriculum.data[name])


def toy_part(task: str, count: int, codec: Codec, seed: int) -> Part:
    def make(progress: Progress) -> Lessons:
        from ..toy.make import toy_examples

        progress(f"lessons for {task}", 0, count)
        examples = toy_examples(task, count, seed)
        return encode(codec, task, examples, progress=lambda done: progress(f"lessons for {task}", done, count))

    return Part(f"{task}-{count}-{seed}", make)


def set_part(stage: Stage, source: Source, codec: Codec, size: int, seed: int) -> Part:
    def make(progress: Progress) -> Lessons:
        from ..data.tasks.examples import Examples

        examples, wanted = Examples(source, stage.task, size, seed), source.knobs.examples
        if len(sum(examples.sizes, [])) > 1:
            raise ValueError(
                f"data.{source.name} asks for several sizes, which lie in a cache alone, not in memory: make one with "
                f"cologen data cache, and set data.{source.name}.cache; or leave aspect and resolutions out."
            )

        def tell(done: int) -> None:
            progress(f"{source.name} for {stage.task}", done, wanted)

        lessons = encode(codec, stage.task, examples.taken(wanted), progress=tell)
        if examples.stream.tally.broken or examples.stream.tally.unfit:
            logging.getLogger(__name__).warning("%s: %s.", source.name, examples.told())
        return lessons

    depends = json.dumps([repr(source.reader), repr(source.knobs), size, seed, codec.identity()])
    return Part(f"{stage.task}-{source.name}-{hashlib.blake2b(depends.encode(), digest_size=8).hexdigest()}", make)
