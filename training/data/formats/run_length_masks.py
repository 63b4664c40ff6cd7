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
MAX_PASSES = 64
"""How often the polygons of one mask may pass over each pixel: what they cost follows the picture's size."""
DIGIT, SIGN, CONTINUED = 0x1F, 0x10, 0x20
"""A packed number is written five bits a letter, the lowest first."""


def decode_mask(segmentation: Any, size: Size) -> np.ndarray:
    """Decodes any of COCO's forms, a list of polygons or an object with `size` and `counts`, to bool (height, width)."""
    try:
        if isinstance(segmentation, dict):
            return decode_runs(segmentation, size)
        return fill_polygons(segmentation, size)
    except (TypeError, KeyError, ValueError, OverflowError, IndexError) as error:
        raise BrokenFile(f"a mask is neither polygons nor run lengths ({shorten(error)})") from None


def fill_polygons(polygons: Sequence[Sequence[float]], size: Size) -> np.ndarray:
    """Fills x, y, x, y, ...: a pixel is inside if an odd number of a polygon's crossings lies above it in its column."""
    height, width = size
    inside = np.zeros(height * width, bool)
    left = MAX_PASSES * max(height * width, 1024)
    for points in polygons:
        columns, rows = find_crossings(round_corners(points), size, left)
        if not len(columns):
            continue
        first, last = columns.min(), columns.max() + 1
        left -= len(columns) + height * (last - first)
        if left < 0:
            raise ValueError(f"its polygons pass over the picture more than {MAX_PASSES} times")
        start, stop = first * height, last * height
        crossings = np.bincount(columns * height + rows - start, minlength=stop - start)[: stop - start]
        inside[start:stop] |= (np.cumsum(crossings) % 2).astype(bool)
    return inside.reshape(width, height).T


def round_corners(points: Sequence[float]) -> np.ndarray:
    """Rounds a polygon's corners to the fine grid, (corners, 2)."""
    if len(points) < 6:
        raise ValueError(f"{len(points)} numbers, expected 6 or more")
    fine = np.trunc(FINER * np.asarray(points, np.float64).reshape(-1, 2) + 0.5)
    if not np.abs(fine).max() < MAX_CORNER:
        raise ValueError("a corner is far outside of the picture")
    return fine.astype(np.int64)


def find_crossings(corners: np.ndarray, size: Size, max_count: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds where an outline goes over the middle of a column of pixels: columns, and the first row below it.

    An edge is the grid points from corner to corner, one each step along the axis on which these are farther apart.
    Only the steps that pass a middle are computed.
    """
    height, width = size
    ends = np.roll(corners, -1, 0)
    lower = np.minimum(corners[:, 0], ends[:, 0])
    upper = np.maximum(corners[:, 0], ends[:, 0])
    # middles lie between the fine steps 5 c + 2 and 5 c + 3
    first = np.clip(-((2 - lower) // FINER), 0, width)
    stop = np.clip((upper - 3) // FINER + 1, 0, width)
    counts = np.maximum(stop - first, 0)
    if counts.sum() > max_count:
        raise ValueError(f"its polygons pass over the picture more than {MAX_PASSES} times")
    edges = np.repeat(np.arange(len(corners)), counts)
    columns = np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edges]
    y = find_heights(corners[edges], ends[edges], FINER * columns + 3)
    return columns, np.ceil(np.clip((y + 0.5) / FINER - 0.5, 0, height)).astype(np.int64)


def find_heights(a: np.ndarray, b: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Finds the upper y of the two grid points between which each edge from a to b goes from x - 1 to x, or back."""
    is_flat = np.abs(b - a)[:, 0] >= np.abs(b - a)[:, 1]
    long = np.where(is_flat, 0, 1)[:, None]
    swap = np.take_along_axis(a, long, 1) > np.take_along_axis(b, long, 1)
    start, end = np.where(swap, b, a), np.where(swap, a, b)
    steps = np.take_along_axis(end - start, long, 1)[:, 0]
    slope = np.take_along_axis(end - start, 1 - long, 1)[:, 0] / np.maximum(steps, 1)

    def trace(origin: np.ndarray, step: np.ndarray) -> np.ndarray:
        return np.trunc(origin + slope * step + 0.5)

    flat_step = x - start[:, 0]
    flat = np.minimum(trace(start[:, 1], flat_step - 1), trace(start[:, 1], flat_step))
    # a steep edge changes x by one at most each step: the first of three steps that has it is where it does
    target = np.where(slope > 0, x, x - 1)
    guess = np.ceil((target - start[:, 0] + np.where(slope > 0, -0.5, 0.5)) / np.where(slope == 0, 1, slope))
    steep = guess + 2
    for step in (guess + 1, guess, guess - 1):
        at = trace(start[:, 0], step)
        steep = np.where(np.where(slope > 0, at >= target, at <= target), step, steep)
    return np.where(is_flat, flat, start[:, 1] + steep - 1)


def decode_runs(runs: dict[str, Any], size: Size) -> np.ndarray:
    """`counts` says how many pixels are out, then in, then out again, down the columns."""
    counts, pixels = runs["counts"], size[0] * size[1]
    counts = np.asarray(unpack_counts(counts) if isinstance(counts, (str, bytes)) else counts)
    if counts.ndim != 1 or (counts.size and counts.dtype.kind not in "iu"):
        raise ValueError("its runs are no list of whole numbers")
    if tuple(runs["size"]) != tuple(size):
        raise ValueError(f"it is for {runs['size']}, the picture is {list(size)}")
    # each by itself first: a sum of 64 bits may wrap
    if counts.min(initial=0) < 0 or counts.max(initial=0) > pixels or counts.sum(dtype=np.int64) != pixels:
        raise ValueError(f"its runs do not cover the picture's {pixels} pixels")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts.astype(np.int64)).reshape(size[::-1]).T


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
