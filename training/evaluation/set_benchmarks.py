"""Benchmarks of our own, from held-out splits of the paper's data sets: inpainting and grounding, for which it has no table.

A case's hole, colour and words follow from its id alone, so that every bank is asked the same.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..data.box import Box
from ..data.sample import Sample, Thing
from ..data.sets.coco_stuff import CocoStuff
from ..data.sets.reader import ListedReader
from ..data.sets.refcoco import RefCoco
from ..data.tasks.ground import COLOURS, FORMS, Colours, choose, find_visible_colours
from ..data.tasks.inpaint import fill_grey
from ..data.tasks.masks import draw_hole
from .case import Case, fit_area, resize
from .networks import MetricNetworks

SPLIT = "val2017"


class AskedBox(NamedTuple):
    """A box that a grounding case asks for."""

    box: Box
    """In the source's pixels."""
    colour: str
    """The name of the colour that it shall be drawn in."""
    colours: Colours = COLOURS
    """All that it could have been drawn in."""


def read_inpainting(root: Path, side: int, networks: MetricNetworks) -> Iterator[Case]:
    """Reads a picture of COCO-Stuff's held-out split each, with a hole as training draws them;
    an object's asks for the object."""
    for id, sample in _read_samples(CocoStuff(str(root), split=SPLIT)):
        picture, things = _fit(sample, side)
        hole = draw_hole(_make_rng(id), [thing.mask for thing in things], picture.shape[:2])
        thing = None if hole.of is None else things[hole.of]
        prompt = sample.caption if thing is None else thing.name or thing.kind
        extra = {"mask": hole.mask, "group": hole.kind}
        yield Case(id, fill_grey(picture, hole.mask), prompt, picture, extra)


def read_refcoco(reader: type[RefCoco], root: Path, side: int, networks: MetricNetworks) -> Iterator[Case]:
    """Reads a phrase of the val split each: a box round the one thing that it refers to."""
    for id, sample in _read_samples(reader(str(root), split="val")):
        picture, things = _fit(sample, side)
        for number, thing in enumerate(thing for thing in things if thing.name):
            rng = _make_rng(f"{id}-{number}")
            area = FORMS["box"].area([thing], picture.shape[:2])
            colour = choose(rng, find_visible_colours(picture[area], COLOURS))
            prompt = choose(rng, FORMS["box"].templates).format(thing=thing.name, colour=colour)
            yield Case(f"{id}-{number}", picture, prompt, None, {"asked": AskedBox(thing.box, colour)})


def _read_samples(reader: ListedReader) -> Iterator[tuple[str, Sample]]:
    for id, entry in reader.entries:
        sample: Any = reader.read_entry(id, entry)
        yield id, sample


def _fit(sample: Sample, side: int) -> tuple[np.ndarray, Sequence[Thing]]:
    """Fits a sample's picture at the size that is drawn, and those of its things that are still to be seen there."""
    size = fit_area(sample.picture.shape, side)
    things = [Thing(thing.name, thing.kind, _resize_mask(thing.mask, size)) for thing in sample.things]
    return resize(sample.picture, size), [thing for thing in things if thing.mask.any()]


def _resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.array(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))


def _make_rng(id: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "big"))
