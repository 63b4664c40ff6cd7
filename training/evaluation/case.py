"""A question of a benchmark: a source and a prompt, and what the answer is compared with."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

GRID = 16
"""Side of the square of pixels that a token covers."""
Picture = np.ndarray | Callable[[], np.ndarray]
"""uint8 (height, width, 3), or a function that reads them: a benchmark is larger than memory, and each rank reads its part."""


class Case(NamedTuple):
    """One question; pictures are read when they are needed."""

    id: str
    """Unique within the benchmark."""
    source: Picture | None
    prompt: str
    reference: Picture | None = None
    """A right answer, or the photograph that a map was drawn from."""
    extra: Mapping[str, Any] = MappingProxyType({})
    """"caption": what the answer shall show, where the prompt is an instruction; "photos": Pictures of a subject;
    "labels": reads classes (height, width), 255 where none counts; "mask": what was to change, of the reference's size
    (bool); "group": a part of the benchmark with a mean of its own; "asked": the box that is asked for (AskedBox)."""


def read_pixels(picture: Picture) -> np.ndarray:
    """Calls a picture that is a function; returns uint8 (height, width, 3)."""
    return picture() if callable(picture) else picture


def resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes to (height, width), bicubic with antialiasing: Pillow's default and that of the scripts of the paper's tables."""
    if picture.shape[:2] == size:
        return picture
    return np.array(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC))


def fit_area(shape: tuple[int, ...], side: float) -> tuple[int, int]:
    """Gives height and width in a picture's own proportions, at the area of a square of this side, on FLUX's grid."""
    scale = side / math.sqrt(shape[0] * shape[1])
    height, width = (max(GRID, round(length * scale / GRID) * GRID) for length in shape[:2])
    return height, width


def fit_square(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Gives height and width of a square, whatever the picture's proportions: stretched, as ControlNet++ does it."""
    return (side, side)
