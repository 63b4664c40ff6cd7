"""Sizes to train on: for every resolution a few shapes of about its area, so that no picture loses much to its crop."""

from collections.abc import Sequence
from math import log

import numpy as np

from .box import Size

SIDE_MULTIPLE = 64
"""Sides of what is not square are multiples of this."""


def list_sizes(resolution: int, aspect: float = 1.0) -> list[Size]:
    """Lists the square first, then shapes of at most its area whose sides are at most `aspect` to one."""
    sides = range(SIDE_MULTIPLE, int(resolution * aspect**0.5) + 1, SIDE_MULTIPLE)
    shapes = [(height, int(resolution**2 / height) // SIDE_MULTIPLE * SIDE_MULTIPLE) for height in sides]
    both = {size for height, width in shapes for size in ((height, width), (width, height))}
    oblong = sorted(size for size in both if size[0] != size[1] and 0 < max(size) <= aspect * min(size))
    return [(resolution, resolution), *oblong]


def pick_size(rng: np.random.Generator, size: Size, groups: Sequence[Sequence[Size]]) -> Size:
    """Picks a size for a picture: at random one of the resolutions that it has (the least, if none), and of that
    resolution's shapes the one nearest its own."""
    large_enough = [group for group in groups if group[0][0] * group[0][1] <= size[0] * size[1]] or [groups[0]]
    group = large_enough[int(rng.integers(len(large_enough)))] if len(large_enough) > 1 else large_enough[0]
    return min(group, key=lambda shape: abs(log(shape[0] * size[1] / (shape[1] * size[0]))))
