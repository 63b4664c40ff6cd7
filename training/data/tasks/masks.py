"""Holes for the inpainting stage (paper, section 2.3): random, object-shaped, irregular object-shaped.

A mask is a bool array (height, width), True where the picture is to be filled. The random kind follows
LaMa's generator (sizes in pixels for a side of 256, scaled with the picture), the irregular one grows
Bezier curves out of the object's box as Paint by Example does.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ..box import Box, Size, find_box

REFERENCE_SIDE = 256
KINDS = {"random": 0.2, "object": 0.4, "irregular": 0.4}
"""The paper's mixture."""
MAX_OVERLAP = 0.3
"""A random mask that covers an object better than this is drawn again: it shall ask for the scene."""
TRIES = 50
"""Random masks that are drawn before the one that overlaps least is taken: our choice, the paper discards them."""
POINTS_A_SIDE = 5
"""Uniform points on each of the box's four curves: 20 in all."""


class Hole(NamedTuple):
    """A hole, and what made it."""

    kind: str
    mask: np.ndarray
    of: int | None
    """The index of the object that made it; None for a random hole."""


def compute_iou(a: np.ndarray, b: np.ndarray) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0


def draw_hole(rng: np.random.Generator, objects: Sequence[np.ndarray], size: Size) -> Hole:
    """Draws a mask of a kind from KINDS; a picture without objects gets a random one (our choice)."""
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values()))) if objects else "random"
    if kind == "random":
        return Hole(kind, draw_scene_hole(rng, objects, size), None)
    of = int(rng.integers(len(objects)))
    mask = objects[of]
    return Hole(kind, mask.copy() if kind == "object" else draw_irregular(rng, find_box(mask), size), of)


def draw_scene_hole(rng: np.random.Generator, objects: Sequence[np.ndarray], size: Size) -> np.ndarray:
    """Draws a random mask that lies on no object; if there is none, the one that overlaps least."""
    best, least = np.zeros(size, bool), np.inf
    for _ in range(TRIES):
        mask = draw_strokes(rng, size) if rng.random() < 0.5 else draw_boxes(rng, size)
        overlap = max((compute_iou(mask, other) for other in objects), default=0.0)
        if overlap < least and mask.any():
            best, least = mask, overlap
        if least <= MAX_OVERLAP:
            break
    return best


def draw_strokes(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Draws 1 to 5 broken lines of up to 5 pieces each."""
    height, width = size
    scale = min(size) / REFERENCE_SIDE
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    for stroke in range(rng.integers(1, 6)):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        for _ in range(1 + rng.integers(5)):
            angle = 0.01 + rng.integers(4)
            angle = 2 * np.pi - angle if stroke % 2 == 0 else angle
            length, thick = (10 + rng.integers(200)) * scale, max(1, round((5 + rng.integers(100)) * scale))
            to_x = int(np.clip(x + length * np.sin(angle), 0, width))
            to_y = int(np.clip(y + length * np.cos(angle), 0, height))
            draw.line((x, y, to_x, to_y), 1, thick)
            x, y = to_x, to_y
    return np.array(canvas)


def draw_boxes(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Draws 1 to 4 boxes of 30 to 150 pixels (of 256), at least 10 from the border."""
    height, width = size
    scale = min(size) / REFERENCE_SIDE
    margin, low, high = round(10 * scale), max(1, round(30 * scale)), max(1, round(150 * scale))
    mask = np.zeros(size, bool)
    for _ in range(rng.integers(1, 5)):
        w = int(rng.integers(low, min(high, width - 2 * margin) + 1))
        h = int(rng.integers(low, min(high, height - 2 * margin) + 1))
        x, y = (int(rng.integers(margin, side - margin - part + 1)) for side, part in ((width, w), (height, h)))
        mask[y : y + h, x : x + w] = True
    return mask


def draw_irregular(rng: np.random.Generator, box: Box, size: Size, grow: float = 0.4) -> np.ndarray:
    """Draws a blob round a box: a quadratic Bezier from corner to corner for each side, bulging outwards by at
    most half of `grow` of the free space there; 20 points, jittered, joined to a polygon."""
    height, width = size
    x0, y0, x1, y1 = box
    jitter = 5 * min(size) / 512  # our choice: their 5 pixels are for 512
    out_x0, out_y0 = x0 - rng.uniform(0, grow * x0), y0 - rng.uniform(0, grow * y0)
    out_x1, out_y1 = x1 + rng.uniform(0, grow * (width - x1)), y1 + rng.uniform(0, grow * (height - y1))
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    sides = (
        ((x0, y0), (middle_x, out_y0), (x1, y0)),
        ((x1, y0), (out_x1, middle_y), (x1, y1)),
        ((x1, y1), (middle_x, out_y1), (x0, y1)),
        ((x0, y1), (out_x0, middle_y), (x0, y0)),
    )
    points = [bezier(np.array(side), i / POINTS_A_SIDE) for side in sides for i in range(POINTS_A_SIDE)]
    points = np.clip(points + rng.uniform(-jitter, jitter, (len(points), 2)), 0, (width - 1, height - 1))
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in points], fill=1, outline=1)
    return np.array(canvas)


def bezier(points: np.ndarray, t: float) -> np.ndarray:
    """Computes a quadratic curve's point: (1-t)^2 a + 2 t (1-t) b + t^2 c."""
    a, b, c = points
    return (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
