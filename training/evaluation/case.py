"""What a benchmark asks: a source and a prompt, and what the answer is held against."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

GRID = 16
"""Pixels that a token covers."""
Picture = np.ndarray | Callable[[], np.ndarray]
"""uint8 (height, width, 3), or what makes them: a benchmark is larger than memory, and each rank wants a part of it."""


class Case(NamedTuple):
    id: str
    source: Picture
    prompt: str
    reference: Picture | None = None
    """A right answer, or the photograph that a map was drawn from."""
    extra: Mapping[str, Any] = MappingProxyType({})
    """"caption": what the answer shall show, where the prompt is an instruction; "photos": Pictures of a subject;
    "labels": what makes classes (height, width), 255 where none counts; "mask": what was to change, of the reference's size
    (bool); "group": a part with a mean of its own."""


def pixels(picture: Picture) -> np.ndarray:
    return picture() if callable(picture) else picture


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic with antialiasing, Pillow's own default and that of the scripts that the paper was measured with."""
    if picture.shape[:2] == size:
        return picture
    return np.array(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC))


def area(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """A picture's own shape at the area of a square of this side, on FLUX's grid."""
    scale = side / math.sqrt(shape[0] * shape[1])
    return tuple(max(GRID, round(length * scale / GRID) * GRID) for length in shape[:2])


def square(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Stretched, as ControlNet++ does it."""
    return (side, side)
