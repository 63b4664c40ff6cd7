"""Inpainting (paper, section 3.1): fill the hole. How the hole is shown is our choice: mid-grey, no second mask."""

from collections.abc import Sequence

import numpy as np

from ..sample import Example, Sample
from .masks import draw_hole

GREY = 128


def make_inpaint_example(rng: np.random.Generator, sample: Sample, kinds: Sequence[str] = ()) -> Example:
    """A hole that an object made asks for the object, a random one for the scene."""
    found = draw_hole(rng, [thing.mask for thing in sample.things], sample.picture.shape[:2])
    thing = None if found.of is None else sample.things[found.of]
    prompt = sample.caption if thing is None else thing.name or thing.kind
    return Example(sample.id, "inpaint", prompt, fill_grey(sample.picture, found.mask), sample.picture, found.kind)


def fill_grey(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    source = picture.copy()
    source[mask] = GREY
    return source
