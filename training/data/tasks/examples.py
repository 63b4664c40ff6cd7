"""Makes a task's examples of a data set's samples: crops each, then makes its source, prompt and target."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np

from ....prw.files.validate import check_choice
from ..box import Size
from ..buckets import list_sizes, pick_size
from ..formats.picture_files import BrokenFile
from ..geometry import Crop, crop_pair, crop_sample, crop_triple, draw_crop
from ..labels.labels import Labels
from ..sample import AnySample, Example, Pair, Sample, Triple, UnsuitableSample
from ..sets import OpenDataset
from ..sets.folder import PictureFiles
from ..sets.generic import OwnFolder
from ..sets.stream import Stream
from . import EXAMPLE_MAKERS, find_layout
from .folder_layouts import ChooseCrop, fit_to
from .learned_maps import LearnedMaps


def crop_any_sample(sample: AnySample, choose_crop: ChooseCrop) -> AnySample:
    if isinstance(sample, Pair):
        return crop_pair(choose_crop(sample.first), choose_crop(sample.second), sample)
    if isinstance(sample, Triple):
        if sample.before.shape != sample.after.shape:
            sample = replace(sample, before=fit_to(sample.before, sample.after))
        return crop_triple(choose_crop(sample.after), sample)
    return crop_sample(choose_crop(sample.picture), sample)


def list_kinds(dataset: OpenDataset, task: str) -> tuple[str, ...]:
    """Lists the kinds that its table names, else those that the set is for; empty: the usual."""
    return dataset.knobs.kinds or tuple(kind for kind in dataset.info.kinds if kind in EXAMPLE_MAKERS[task].kinds)


def describe_set_maps(dataset: OpenDataset, task: str) -> str:
    """Says what draws HED and line art; empty: none is drawn, as in a folder of one's own."""
    if isinstance(dataset.reader, OwnFolder):
        return ""
    return LearnedMaps(dataset.knobs.maps).describe(list_kinds(dataset, task) or EXAMPLE_MAKERS[task].kinds)


class ExampleStream:
    """A data set's examples for a task. What is random about one follows from the seed, the epoch and its id alone."""

    def __init__(self, dataset: OpenDataset, task: str, size: int, seed: int = 0, rank: int = 0, world: int = 1):
        check_choice(f"The task of {dataset.name}", task, dataset.info.feeds)
        self.dataset, self.task, self.seed = dataset, task, seed
        self.sizes = [list_sizes(side, dataset.knobs.aspect) for side in dataset.knobs.resolutions or (size,)]
        self.maker, self.kinds = EXAMPLE_MAKERS[task], dataset.knobs.kinds
        for kind in self.kinds:
            check_choice(f"data.{dataset.name}.kinds", kind, self.maker.kinds)
        self.kinds = list_kinds(dataset, task)
        self.maps = LearnedMaps(dataset.knobs.maps)
        if drawn := describe_set_maps(dataset, task):
            logging.getLogger(__name__).info("%s: %s.", dataset.name, drawn)
        self.labels = Labels(Path(dataset.knobs.labels)) if dataset.knobs.labels else None
        self.stream = Stream(dataset.reader, dataset.name, rank, world, seed)

    def iterate_epoch(self) -> Iterator[Example]:
        """Yields what is left of an epoch."""
        epoch, counter = self.stream.epoch, self.stream.counter
        for sample in self.stream:
            rng = np.random.default_rng((self.seed, epoch, crc32(sample.id.encode())))
            try:
                yield self.make_example(sample, rng)
            except UnsuitableSample:
                counter.unfit += 1
            except BrokenFile as error:
                counter.add_broken(sample.id, error)

    def take(self, count: int) -> Iterator[Example]:
        """Yields so many, over as many epochs as that takes; 0: each sample as often as the set's table says."""
        if not count:
            while self.stream.epoch < self.dataset.knobs.variants:
                yield from self.iterate_epoch()
            return
        while count:
            before, begins = count, self.stream.position is None
            for example in self.iterate_epoch():
                yield example
                count -= 1
                if not count:
                    return
            if before == count and begins:
                raise ValueError(f"{self.dataset.name} has no example for {self.task}: {self.summarize()}.")

    def summarize(self) -> str:
        """Says how many samples were broken or unsuitable so far."""
        counter = self.stream.counter
        unsuitable = f", {counter.unfit} have nothing for {self.task}" if counter.unfit else ""
        return counter.summary() + unsuitable

    def make_example(self, sample: AnySample | PictureFiles, rng: np.random.Generator) -> Example:
        size: list[Size] = []  # the first picture's: what belongs together has one size

        def choose_crop(pixels: np.ndarray) -> Crop:
            if not size:
                size.append(pick_size(rng, pixels.shape[:2], self.sizes))
            return draw_crop(rng, pixels.shape[:2], size[0], flip=self.dataset.knobs.flip)

        if isinstance(sample, PictureFiles):
            layout = find_layout(self.task)
            sample.check(layout.companion, layout.required)
            return layout.make_example(self.task, sample, choose_crop, rng)
        if not isinstance(sample, self.maker.takes):
            raise BrokenFile(
                f"it is a {type(sample).__name__.lower()}, {self.task} takes a {self.maker.takes.__name__.lower()}"
            )
        if self.labels and isinstance(sample, Sample):
            things = self.labels.things(sample.id, sample.picture.shape[:2])
            sample = replace(sample, things=(*sample.things, *things))
        cropped = crop_any_sample(sample, choose_crop)
        if isinstance(cropped, Sample):
            cropped = self.maps.add_to(cropped)
        return self.maker.make(rng, cropped, self.kinds)
