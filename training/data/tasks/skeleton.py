"""Pose maps as OpenPose's have it: on black a person's 18 points and the 17 limbs between them, each in a hue of its own.

A limb is an ellipse from point to point, darker than the points; limb and point number i have the colour of hue i / 18.
"""

import colorsys
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..box import Size

COCO_POINTS = (
    *("nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder", "left elbow"),
    *("right elbow", "left wrist", "right wrist", "left hip", "right hip", "left knee", "right knee", "left ankle"),
    "right ankle",
)
"""Points in the order of models that were trained on COCO."""
ARM, LEG = ("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")
POINTS = (
    *("nose", "neck"),
    *(f"{side} {part}" for parts in (ARM, LEG) for side in ("right", "left") for part in parts),
    *("right eye", "left eye", "right ear", "left ear"),
)
"""Points in the order of their colours."""
LIMBS = (
    *(("neck", "right shoulder"), ("neck", "left shoulder")),
    *(("right shoulder", "right elbow"), ("right elbow", "right wrist")),
    *(("left shoulder", "left elbow"), ("left elbow", "left wrist")),
    *(("neck", "right hip"), ("right hip", "right knee"), ("right knee", "right ankle")),
    *(("neck", "left hip"), ("left hip", "left knee"), ("left knee", "left ankle")),
    ("neck", "nose"),
    *(("nose", "right eye"), ("right eye", "right ear"), ("nose", "left eye"), ("left eye", "left ear")),
)
COLOURS = tuple(
    tuple(int(255 * value + 1e-6) for value in colorsys.hsv_to_rgb(i / len(POINTS), 1, 1)) for i in range(len(POINTS))
)
LIMB_LIGHT = 0.6
"""How bright a limb is beside a point."""
WIDTH, SIDE = 4.0, 512
"""Half a limb's width, and a point's radius, in pixels for a shorter side of SIDE."""
CONFIDENCE = 0.3
"""Points that a model is less sure of are left out: our choice."""

Point = tuple[float, float]


def name_points(points: Sequence[Sequence[float]], scores: Sequence[float], size: Size) -> dict[str, Point]:
    """Names a person's points in COCO's order: those that are sure and in the picture, and the neck between the shoulders."""
    height, width = size
    named = {
        name: (float(x), float(y))
        for name, (x, y), score in zip(COCO_POINTS, points, scores, strict=True)
        if score >= CONFIDENCE and 0 <= x < width and 0 <= y < height
    }
    if "left shoulder" in named and "right shoulder" in named:
        (x, y), (other_x, other_y) = named["left shoulder"], named["right shoulder"]
        named["neck"] = ((x + other_x) / 2, (y + other_y) / 2)
    return named


def draw_skeletons(people: Iterable[Mapping[str, Point]], size: Size) -> np.ndarray:
    """Draws the limbs and points that each person has; later ones cover earlier ones."""
    canvas = np.zeros((*size, 3), np.uint8)
    radius = max(1.0, WIDTH * min(size) / SIDE)
    for points in people:
        for (start, end), colour in zip(LIMBS, COLOURS, strict=False):  # a colour is left
            if start in points and end in points:
                fill_ellipse(canvas, points[start], points[end], radius, [round(LIMB_LIGHT * c) for c in colour])
        for name, colour in zip(POINTS, COLOURS, strict=True):
            if name in points:
                (x, y) = points[name]
                fill_ellipse(canvas, (x - radius, y), (x + radius, y), radius, colour)
    return canvas


def fill_ellipse(canvas: np.ndarray, start: Point, end: Point, radius: float, colour: Sequence[int]) -> None:
    """Fills an ellipse from `start` to `end` that is `radius` high on both sides; a pixel's centre has whole numbers."""
    height, width = canvas.shape[:2]
    (x, y), half = (np.add(start, end) / 2), np.subtract(end, start) / 2
    length = float(np.hypot(*half))
    ahead, aside = half / length if length else (1.0, 0.0)
    reach = max(length, radius) + 1
    rows, columns = (
        slice(max(0, int(middle - reach)), min(limit, int(middle + reach) + 1))
        for middle, limit in ((y, height), (x, width))
    )
    down, right = np.ogrid[rows, columns]
    down, right = down - y, right - x
    along, across = right * ahead + down * aside, right * aside - down * ahead
    inside = (along / max(length, 0.5)) ** 2 + (across / radius) ** 2 <= 1 + 1e-9
    canvas[rows, columns][inside] = colour
