"""Boxes and sizes in pixels."""

from typing import NamedTuple

import numpy as np

Size = tuple[int, int]
"""Height and width."""


class Box(NamedTuple):
    """x0 <= x < x1, y0 <= y < y1."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def part(self) -> tuple[slice, slice]:
        """Indexes the box's pixels in a picture or mask."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def corner_and_size(self) -> tuple[int, int, int, int]:
        """x, y, width, height, as ComfyUI's boxes have them."""
        return self.x0, self.y0, self.x1 - self.x0, self.y1 - self.y0

    def move(self, x: int, y: int) -> "Box":
        return Box(self.x0 + x, self.y0 + y, self.x1 + x, self.y1 + y)


def find_box(mask: np.ndarray) -> Box:
    """Finds the smallest box round all that is True; the mask must not be empty."""
    ys, xs = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    return Box(int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1)
