"""Each stage's dataset, from the built-in world, data sets or their cache: made when a stage first asks,
and kept in the run's folder."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ...prw.files.validate import check_choice, check_type
from ..data.encoded.cache_index import cache_folder
from ..data.encoded.cached import CachedDataset, JoinedDataset, open_cached
from ..data.encoded.dataset import EncodedDataset, MemoryDataset, concat_datasets, load_dataset
from ..data.encoded.encode import encode_dataset
from ..data.sets import OpenDataset, open_dataset
from ..data.tasks.learned_maps import LearnedMaps
from ..encoders.protocol import Encoders
from ..from_scratch.learner import Progress
from ..from_scratch.world import World
from ..recipes.curriculum import Curriculum, Stage
from ..recipes.subject import OWN
from ..toy.store import TOY
from .worlds import WORLDS


class RunDatasetFile(NamedTuple):
    """Data that a run encodes once, into a file of its own."""

    file: str
    """Its name says everything that the samples depend on."""
    make: Callable[[Progress], MemoryDataset]

    def open(self, folder: Path, progress: Progress) -> MemoryDataset:
        path = folder / f"{self.file}.safetensors"
        if path.exists():
            return load_dataset(path)
        dataset = self.make(progress)
        dataset.save(path)
        return dataset


class CacheReference(NamedTuple):
    """Data that stays where `cologen data cache` left it; a file of the run says which shards it takes."""

    file: str
    task: str
    cache: Path
    expected: Mapping[str, Any]
    """What the samples must be, of cache.json."""

    def open(self, folder: Path, progress: Progress) -> CachedDataset:
        return open_cached(self.cache, self.task, folder / f"{self.file}.json", self.expected)


StageData = Mapping[str, Sequence[RunDatasetFile | CacheReference]]
"""By stage: the data that it names."""


class StageDatasets(Mapping[str, EncodedDataset]):
    """Datasets by stage, opened at first use; stages that name the same data share one."""

    def __init__(self, data: StageData, folder: Path, progress: Progress):
        self.data, self.folder, self.progress = data, folder, progress
        self.opened: dict[tuple[str, ...], EncodedDataset] = {}

    def __getitem__(self, stage: str) -> EncodedDataset:
        names = tuple(part.file for part in self.data[stage])
        if names not in self.opened:
            self.opened[names] = join_datasets([part.open(self.folder, self.progress) for part in self.data[stage]])
        return self.opened[names]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


def join_datasets(parts: Sequence[MemoryDataset | CachedDataset]) -> EncodedDataset:
    """Joins what a stage names: in memory, if all of it is. Our choice: each sample is as likely, whatever set it is of."""
    in_memory = [part for part in parts if isinstance(part, MemoryDataset)]
    return reduce(concat_datasets, in_memory) if len(in_memory) == len(parts) else JoinedDataset(parts)


def plan_stage_data(curriculum: Curriculum, count: int, encoders: Encoders, seed: int) -> StageData:
    """Says for each stage where its dataset comes from; opens nothing. `count`: examples that a world draws."""

    def find(stage: Stage, name: str) -> RunDatasetFile | CacheReference:
        if world := WORLDS.get(name):
            check_choice(f"{stage.name}.task", stage.task, (*world.tasks, OWN))
            return describe_world_data(world, stage.task, count, encoders, seed)
        size = curriculum.settings.resolution
        if cache := find_cache(curriculum, name):
            expected = {"encoders": encoders.identity(), "size": size}
            folder = cache_folder(cache, stage.task, name)
            return CacheReference(f"{stage.task}-{name}-cached", stage.task, folder, expected)
        return describe_set_data(stage, open_stage_dataset(curriculum, stage, name), encoders, size, seed)

    own = curriculum.base if curriculum.base in WORLDS else TOY.name
    return {stage.name: [find(stage, name) for name in stage.data or (own,)] for stage in curriculum.stages}


def find_cache(curriculum: Curriculum, name: str) -> str:
    """Finds where a set's table says that its encoded samples lie; then the set itself need not be on this machine."""
    return check_type(f"data.{name}.cache", curriculum.data.get(name, {}).get("cache", ""), str)


def open_stage_dataset(curriculum: Curriculum, stage: Stage, name: str) -> OpenDataset:
    """Opens a set that a stage names."""
    if name not in curriculum.data:
        raise ValueError(
            f"The stage {stage.name} names the data set {name}, of which the recipe says no more: set data.{name}.path=FOLDER, "
            f'or add a table [data."{name}"] with its path (docs/data.md).'
        )
    return open_dataset(name, curriculum.data[name])


def describe_world_data(world: World, task: str, count: int, encoders: Encoders, seed: int) -> RunDatasetFile:
    def make(progress: Progress) -> MemoryDataset:
        def report(done: int) -> None:
            progress(f"samples for {task}", done, count)

        report(0)
        examples = [question.example for question in world.ask(task, count, seed)]
        return encode_dataset(encoders, task, examples, progress=report)

    name = task if world is TOY else f"{task}-{world.name}"
    return RunDatasetFile(f"{name}-{count}-{seed}", make)


def describe_set_data(stage: Stage, dataset: OpenDataset, encoders: Encoders, size: int, seed: int) -> RunDatasetFile:
    def make(progress: Progress) -> MemoryDataset:
        from ..data.tasks.examples import ExampleStream

        examples, wanted = ExampleStream(dataset, stage.task, size, seed), dataset.knobs.examples
        if len(list(chain(*examples.sizes))) > 1:
            raise ValueError(
                f"data.{dataset.name} asks for several sizes, which lie in a cache alone, not in memory: make one with "
                f"cologen data cache, and set data.{dataset.name}.cache; or leave aspect and resolutions out."
            )

        def report(done: int) -> None:
            progress(f"{dataset.name} for {stage.task}", done, wanted)

        encoded = encode_dataset(encoders, stage.task, examples.take(wanted), progress=report)
        if examples.stream.counter.broken or examples.stream.counter.unfit:
            logging.getLogger(__name__).warning("%s: %s.", dataset.name, examples.summarize())
        return encoded

    networks = [drawn] if (drawn := LearnedMaps(dataset.knobs.maps).identity) else []
    depends = json.dumps([repr(dataset.reader), repr(dataset.knobs), size, seed, encoders.identity(), *networks])
    digest = hashlib.blake2b(depends.encode(), digest_size=8).hexdigest()
    return RunDatasetFile(f"{stage.task}-{dataset.name}-{digest}", make)
