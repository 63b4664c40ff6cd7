"""Where a headless run gets its FLUX, its encoders and its lessons from."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from ..prw.attachment import Host
from ..prw.embedded import EmbeddedHost
from ..prw.strict import build, short
from .checkpoints import TrainingError
from .curriculum import Curriculum
from .forward import SPARE_EMBEDDED
from .lessons import Codec, Lessons, encode, load_lessons

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class World(NamedTuple):
    host: Host
    codec: Codec
    lessons: Mapping[str, Lessons]
    name: str
    spare: dict


def open_world(
    curriculum: Curriculum, out: Path, device: str, seed: int, share: float, progress: Callable[[str, int, int], None]
) -> World:
    """`share` is the budget's: it also shortens what the toy world trains before its stages."""
    if curriculum.base != "toy":
        raise TrainingError(
            f'The recipe\'s base is {short(curriculum.base) or "not named"}, expected base = "toy": FLUX.1 itself is '
            f"trained from ComfyUI, with the node CoLoGen Train Curriculum, because its text encoders live there."
        )
    return toy_world(curriculum, out, device, seed, share, progress)


def toy_world(curriculum, out, device, seed, share, progress) -> World:
    from .toy.make import ToyRecipe, make_set, shortened
    from .toy.store import NAME, SHIPPED, open_set

    recipe = shortened(build(ToyRecipe, curriculum.toy, "toy"), share)
    if recipe.rebuild:
        make_set(recipe, out / "base", seed, progress)
    flux, codec = open_set(out / "base" if recipe.rebuild else SHIPPED, device)
    flux = flux.to(DTYPES[curriculum.settings.precision])
    lessons = ToyLessons([stage.task for stage in curriculum.stages], recipe.examples, codec, out, seed, progress)
    return World(EmbeddedHost(flux, DTYPES[curriculum.settings.precision]), codec, lessons, NAME, SPARE_EMBEDDED)


class ToyLessons(Mapping):
    """Drawn and encoded when a stage first asks for them, and kept in the run's folder."""

    def __init__(self, tasks, count: int, codec: Codec, out: Path, seed: int, progress):
        self.tasks, self.count, self.codec, self.seed, self.progress = tuple(tasks), count, codec, seed, progress
        self.folder = out / "lessons"
        self.open: dict[str, Lessons] = {}

    def __getitem__(self, task: str) -> Lessons:
        if task not in self.tasks:
            raise KeyError(task)
        if task not in self.open:
            self.open[task] = self._made(task)
        return self.open[task]

    def _made(self, task: str) -> Lessons:
        from .toy.make import toy_examples

        path = self.folder / f"{task}-{self.count}-{self.seed}.safetensors"
        if path.exists():
            return load_lessons(path)
        self.progress(f"lessons for {task}", 0, self.count)
        examples = toy_examples(task, self.count, self.seed)
        lessons = encode(self.codec, task, examples, progress=lambda i, n: self.progress(f"lessons for {task}", i, n))
        lessons.save(path)
        return lessons

    def __iter__(self) -> Iterator[str]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)
