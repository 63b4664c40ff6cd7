"""What a picture of classes shows: its colours, and connected regions as things."""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from ..sample import Thing

MIN_SHARE, MAX_SHARE = 0.005, 0.5
"""Share of the picture that a region has, to be a thing."""


def colour_labels(labels: np.ndarray, palette: np.ndarray, first: int = 0) -> np.ndarray:
    """`first` is the number of the palette's first colour; what has no colour is black."""
    table = np.zeros((65536, 3), np.uint8)
    table[first : first + len(palette)] = palette
    return table[labels.astype(np.uint16)]


def find_regions(labels: np.ndarray, names: Mapping[int, str]) -> tuple[Thing, ...]:
    """Of the classes that have a name. Their names do not tell two of a class apart, so they are kinds."""
    things = []
    for number in np.unique(labels):
        if name := names.get(int(number)):
            spots, count = ndimage.label(labels == number)
            sizes = np.bincount(spots.ravel(), minlength=count + 1)[1:] / labels.size
            kept = np.nonzero((sizes >= MIN_SHARE) & (sizes <= MAX_SHARE))[0] + 1
            things += [Thing("", name, spots == i) for i in kept]
    return tuple(things)
