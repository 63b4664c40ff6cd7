"""Inpainting (paper, section 2.3): fill the hole. How the hole is shown is our choice: mid-grey, no second mask."""

from collections.abc import Sequence

import numpy as np

from ..sample import Example, Sample
from .masks import draw_hole

GREY = 128


def make_inpaint_example(rng: np.random.Generator, sample: Sample, kinds: Sequence[str] = ()) -> Example:
    """Makes a hole: one that an object made asks for the object by its name (our choice), a random one for the scene by the
    caption. It has no kinds to choose."""
    hole = draw_hole(rng, [thing.mask for thing in sample.things], sample.picture.shape[:2])
    thing = None if hole.of is None else sample.things[hole.of]
    prompt = sample.caption if thing is None else thing.name or thing.kind
    return Example(sample.id, "inpaint", prompt, fill_grey(sample.picture, hole.mask), sample.picture, hole.kind)


def fill_grey(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Shows the hole in a copy."""
    source = picture.copy()
    source[mask] = GREY
    return source
