"""COCO's masks: polygons, and run lengths down the columns, plain or packed into text.

Equal to pycocotools pixel by pixel (a test compares them), but safe for files of strangers. Its C code reads memory that
is not its own for runs that are too short and crashes on a corner far outside; what would have to be checked before it
may be called is the decoding itself. Polygons: outlines are traced on a grid five times as fine.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....prw.files.validate import shorten
from ..box import Size
from .picture_files import BrokenFile

FINER = 5
MAX_CORNER = 10**6
"""Fine steps that a corner may lie away."""
DIGIT, SIGN, CONTINUED = 0x1F, 0x10, 0x20
"""A packed number is written five bits a letter, the lowest first."""


def decode_mask(segmentation: Any, size: Size) -> np.ndarray:
    """Decodes any of COCO's forms, a list of polygons or an object with `size` and `counts`, to bool (height, width)."""
    try:
        if isinstance(segmentation, dict):
            return decode_runs(segmentation, size)
        mask = np.zeros(size, bool)
        for polygon in segmentation:
            mask |= fill_polygon(polygon, size)
        return mask
    except (TypeError, KeyError, ValueError, OverflowError, IndexError) as error:
        raise BrokenFile(f"a mask is neither polygons nor run lengths ({shorten(error)})") from None


def fill_polygon(points: Sequence[float], size: Size) -> np.ndarray:
    """Fills x, y, x, y, ...: a pixel is inside if an odd number of outline crossings lies above it in its column."""
    height, width = size
    if len(points) < 6:
        raise ValueError(f"{len(points)} numbers, expected 6 or more")
    fine = np.trunc(FINER * np.asarray(points, np.float64).reshape(-1, 2) + 0.5)
    if not np.abs(fine).max() < MAX_CORNER:
        raise ValueError("a corner is far outside of the picture")
    fine = fine.astype(np.int64)
    x, y = np.concatenate([trace_line(a, b) for a, b in zip(fine, np.roll(fine, -1, 0))], 1)
    step = np.nonzero(x[1:] != x[:-1])[0]
    columns = (np.minimum(x[step + 1], x[step + 1] - (x[step + 1] > x[step])) + 0.5) / FINER - 0.5
    rows = np.ceil(np.clip((np.minimum(y[step + 1], y[step]) + 0.5) / FINER - 0.5, 0, height))
    crossed = (np.floor(columns) == columns) & (columns >= 0) & (columns <= width - 1)
    positions = (columns[crossed] * height + rows[crossed]).astype(np.int64)
    crossings = np.bincount(positions, minlength=height * width + 1)[: height * width]
    return (np.cumsum(crossings) % 2).astype(bool).reshape(width, height).T


def trace_line(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Lists every grid point from a to b, along the axis on which they are farther apart, as rows x and y."""
    across, down = np.abs(b - a)
    long = 0 if across >= down else 1
    start, end = (b, a) if a[long] > b[long] else (a, b)
    steps = np.arange(max(across, down) + 1)
    slope = (end[1 - long] - start[1 - long]) / max(across, down, 1)
    points = np.empty((2, len(steps)), np.int64)
    points[long] = start[long] + steps
    points[1 - long] = np.trunc(start[1 - long] + slope * steps + 0.5)
    return points if start is a else points[:, ::-1]


def decode_runs(runs: dict[str, Any], size: Size) -> np.ndarray:
    """`counts` says how many pixels are out, then in, then out again, down the columns."""
    counts = runs["counts"]
    counts = np.asarray(unpack_counts(counts) if isinstance(counts, (str, bytes)) else counts, np.int64)
    if tuple(runs["size"]) != tuple(size):
        raise ValueError(f"it is for {runs['size']}, the picture is {list(size)}")
    if counts.min(initial=0) < 0 or counts.sum() != size[0] * size[1]:
        raise ValueError(f"its runs cover {counts.sum()} pixels of {size[0] * size[1]}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(size[::-1]).T


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Encodes a mask in the packed form."""
    flat = mask.T.reshape(-1)
    edges = np.nonzero(np.diff(flat))[0] + 1
    counts = np.diff([0, *([0] if flat[:1].any() else []), *edges, len(flat)])
    return {"size": list(mask.shape), "counts": pack_counts(counts.tolist())}


def unpack_counts(text: str | bytes) -> list[int]:
    """Reads the numbers; from the fourth on each is the difference from the one before the last."""
    letters = text.encode("ascii") if isinstance(text, str) else text
    counts, value, shift = [], 0, 0
    for letter in letters:
        bits = letter - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("its text is damaged")
        value |= (bits & DIGIT) << shift
        shift += 5
        if not bits & CONTINUED:
            value -= (1 << shift) if bits & SIGN else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise ValueError("its text is cut off")
    return counts


def pack_counts(counts: Sequence[int]) -> str:
    letters = bytearray()
    for i, count in enumerate(counts):
        value = count - (counts[i - 2] if i > 2 else 0)
        more = True
        while more:
            bits, value = value & DIGIT, value >> 5
            more = value != (-1 if bits & SIGN else 0)
            letters.append(bits + (CONTINUED if more else 0) + 48)
    return letters.decode()
