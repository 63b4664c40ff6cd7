"""Inpainting (paper, section 3.1): fill the hole. How the hole is shown is our choice: mid-grey, no second mask."""

import numpy as np

from ..sample import Example, Sample
from .masks import hole

GREY = 128


def inpaint(rng: np.random.Generator, sample: Sample) -> Example:
    """A hole that an object made asks for the object, a random one for the scene."""
    found = hole(rng, [thing.mask for thing in sample.things], sample.picture.shape[:2])
    thing = None if found.of is None else sample.things[found.of]
    prompt = sample.caption if thing is None else thing.name or thing.kind
    return Example(sample.id, "inpaint", prompt, emptied(sample.picture, found.mask), sample.picture, found.kind)


def emptied(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    source = picture.copy()
    source[mask] = GREY
    return source
