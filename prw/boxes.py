"""Rectangles over a picture, in its pixels: another way to say where a source is read."""

from typing import NamedTuple

import torch
from torch import Tensor


class Rectangle(NamedTuple):
    """Its upper left corner and its size, as the host's boxes have them."""

    x: int
    y: int
    width: int
    height: int

    def clip(self, height: int, width: int) -> tuple[slice, slice]:
        """Indexes the part of it that lies within a picture of that size; raises if none does."""
        rows = slice(max(self.y, 0), min(self.y + self.height, height))
        columns = slice(max(self.x, 0), min(self.x + self.width, width))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            raise ValueError(
                f"The box of {self.width} x {self.height} pixels at {self.x}, {self.y} lies outside of the picture, expected it within "
                f"{width} x {height}: draw it on a canvas of that size."
            )
        return rows, columns


def draw_mask(boxes: tuple[Rectangle, ...], height: int, width: int) -> Tensor:
    """Draws a mask (height, width), 1 within the boxes."""
    mask = torch.zeros(height, width)
    for box in boxes:
        mask[box.clip(height, width)] = 1
    return mask
