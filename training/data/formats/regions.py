"""Pictures of class numbers: their colours, and connected regions as things."""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from ..sample import Thing

MIN_SHARE, MAX_SHARE = 0.005, 0.5
"""Share of the picture that a region has, to be a thing (our choice)."""


def colour_labels(labels: np.ndarray, palette: np.ndarray, first: int = 0) -> np.ndarray:
    """Colours classes; `first` is the number of the palette's first colour, what has no colour is black."""
    table = np.zeros((65536, 3), np.uint8)
    table[first : first + len(palette)] = palette
    return table[labels.astype(np.uint16)]


def find_regions(labels: np.ndarray, names: Mapping[int, str]) -> tuple[Thing, ...]:
    """Finds regions of the classes that have a name. It does not tell two of a class apart, so it is their kind."""
    things = []
    for number in np.unique(labels):
        if name := names.get(int(number)):
            spots, count = ndimage.label(labels == number)
            sizes = np.bincount(spots.ravel(), minlength=count + 1)[1:] / labels.size
            numbers = np.nonzero((sizes >= MIN_SHARE) & (sizes <= MAX_SHARE))[0] + 1
            things += [Thing("", name, spots == i) for i in numbers]
    return tuple(things)
