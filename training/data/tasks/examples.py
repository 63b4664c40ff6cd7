"""From what a set yields to what a task trains on: one look at it, then the task's recipe."""

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
from ..sets import DataSource
from ..sets.folder import PictureFiles
from ..sets.stream import Stream
from . import EXAMPLE_MAKERS, find_layout
from .folder_layouts import ChooseCrop, fit_to


def crop(found: AnySample, look: ChooseCrop) -> AnySample:
    if isinstance(found, Pair):
        return crop_pair(look(found.first), look(found.second), found)
    if isinstance(found, Triple):
        if found.before.shape != found.after.shape:
            found = replace(found, before=fit_to(found.before, found.after))
        return crop_triple(look(found.after), found)
    return crop_sample(look(found.picture), found)


class ExampleStream:
    """A set's examples for a task. What is drawn for one follows from the seed, the epoch and its id alone."""

    def __init__(self, source: DataSource, task: str, size: int, seed: int = 0, rank: int = 0, world: int = 1):
        check_choice(f"The task of {source.name}", task, source.dataset.feeds)
        self.source, self.task, self.seed = source, task, seed
        self.sizes = [list_sizes(int(side), source.knobs.aspect) for side in source.knobs.resolutions or (size,)]
        self.maker, self.kinds = EXAMPLE_MAKERS[task], source.knobs.kinds
        for kind in self.kinds:
            check_choice(f"data.{source.name}.kinds", kind, self.maker.kinds)
        self.kinds = self.kinds or tuple(kind for kind in source.dataset.kinds if kind in self.maker.kinds)
        self.labels = Labels(Path(source.knobs.labels)) if source.knobs.labels else None
        self.stream = Stream(source.reader, source.name, rank, world, seed)

    def iterate_epoch(self) -> Iterator[Example]:
        """What is left of one: ends once each sample has been looked at."""
        number, tally = self.stream.epoch, self.stream.counter
        for found in self.stream:
            rng = np.random.default_rng((self.seed, number, crc32(found.id.encode())))
            try:
                yield self.make(found, rng)
            except UnsuitableSample:
                tally.unfit += 1
            except BrokenFile as error:
                tally.add_broken(found.id, error)

    def take(self, count: int) -> Iterator[Example]:
        """So many, over as many epochs as that takes; 0: each sample as often as the set's table says."""
        if not count:
            while self.stream.epoch < self.source.knobs.variants:
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
                raise ValueError(f"{self.source.name} has no example for {self.task}: {self.summarize()}.")

    def summarize(self) -> str:
        tally = self.stream.counter
        unfit = f", {tally.unfit} have nothing for {self.task}" if tally.unfit else ""
        return tally.summary() + unfit

    def make(self, found: AnySample | PictureFiles, rng: np.random.Generator) -> Example:
        size: list[Size] = []  # the first picture's: what belongs together has one size

        def look(pixels: np.ndarray) -> Crop:
            if not size:
                size.append(pick_size(rng, pixels.shape[:2], self.sizes))
            return draw_crop(rng, pixels.shape[:2], size[0], flip=self.source.knobs.flip)

        if isinstance(found, PictureFiles):
            layout = find_layout(self.task)
            found.check(layout.beside, layout.needed)
            return layout.example(self.task, found, look, rng)
        if not isinstance(found, self.maker.takes):
            raise BrokenFile(
                f"it is a {type(found).__name__.lower()}, {self.task} takes a {self.maker.takes.__name__.lower()}"
            )
        if self.labels and isinstance(found, Sample):
            things = self.labels.things(found.id, found.picture.shape[:2])
            found = replace(found, things=(*found.things, *things))
        return self.maker.make(rng, crop(found, look), self.kinds)
