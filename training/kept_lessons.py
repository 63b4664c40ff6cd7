"""Lessons by task, from the toy world or from data sets: made when a stage first asks, and kept in the run's folder."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .curriculum import Curriculum, Stage
from .data.sets import Source, open_source
from .host_data import joined
from .lessons import Codec, Lessons, encode, load_lessons

TOY = "toy"
Progress = Callable[[str, int, int], None]
"""Hears what is made, how much is done, and of how much (0: nobody knows)."""


class Part(NamedTuple):
    """Lessons that come from one place."""

    file: str
    """Says everything that they depend on."""
    make: Callable[[Progress], Lessons]


class KeptLessons(Mapping):
    def __init__(self, parts: Mapping[str, Sequence[Part]], folder: Path, progress: Progress):
        self.parts, self.folder, self.progress = parts, folder, progress
        self.open: dict[str, Lessons] = {}

    def __getitem__(self, task: str) -> Lessons:
        parts = self.parts[task]
        if task not in self.open:
            first, *others = [self._made(part) for part in parts]
            for other in others:
                first = joined(first, other)
            self.open[task] = first
        return self.open[task]

    def _made(self, part: Part) -> Lessons:
        path = self.folder / f"{part.file}.safetensors"
        if path.exists():
            return load_lessons(path)
        lessons = part.make(self.progress)
        lessons.save(path)
        return lessons

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def parts_of(curriculum: Curriculum, count: int, codec: Codec, seed: int) -> dict[str, list[Part]]:
    """By task: what its stage names, or the toy world; `count` is how many of that."""
    found, said = {}, {}
    for stage in curriculum.stages:
        names = stage.data or (TOY,)
        if said.setdefault(stage.task, names) != names:
            raise ValueError(
                f"Two stages of the task {stage.task} name different data ({', '.join(said[stage.task])}, and "
                f"{', '.join(names)}): a run keeps one collection a task, so name the same, or train them in two runs."
            )
        found[stage.task] = [
            toy_part(stage.task, count, codec, seed)
            if name == TOY
            else set_part(stage, source_of(curriculum, stage, name), codec, curriculum.settings.resolution, seed)
            for name in names
        ]
    return found


def source_of(curriculum: Curriculum, stage: Stage, name: str) -> Source:
    if name not in curriculum.data:
        raise ValueError(
            f'The stage {stage.name} names the data set {name}, of which the recipe says no more: add a table [data."{name}"] '
            f"with its path (docs/data.md)."
        )
    return open_source(name, curriculum.data[name])


def toy_part(task: str, count: int, codec: Codec, seed: int) -> Part:
    def make(progress: Progress) -> Lessons:
        from .toy.make import toy_examples

        progress(f"lessons for {task}", 0, count)
        examples = toy_examples(task, count, seed)
        return encode(codec, task, examples, progress=lambda done: progress(f"lessons for {task}", done, count))

    return Part(f"{task}-{count}-{seed}", make)


def set_part(stage: Stage, source: Source, codec: Codec, size: int, seed: int) -> Part:
    def make(progress: Progress) -> Lessons:
        from .data.examples import Examples

        examples, wanted = Examples(source, stage.task, size, seed), source.knobs.examples

        def tell(done: int) -> None:
            progress(f"{source.name} for {stage.task}", done, wanted)

        lessons = encode(codec, stage.task, examples.taken(wanted), progress=tell)
        if examples.stream.tally.broken or examples.stream.tally.unfit:
            logging.getLogger(__name__).warning("%s: %s.", source.name, examples.told())
        return lessons

    depends = json.dumps([repr(source.reader), repr(source.knobs), size, seed])
    return Part(f"{stage.task}-{source.name}-{hashlib.blake2b(depends.encode(), digest_size=8).hexdigest()}", make)
