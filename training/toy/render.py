"""Scenes as pictures, masks and control maps; all uint8 or bool arrays of SIDE x SIDE, or of another side if asked for."""

import numpy as np

from .scene import COLOURS, CORNER, GROUNDS, MARKERS, PLACES, SHAPES, SIDE, SIZES, Item, Scene

STRIPE = 4
"""Height of a stripe in pixels; stripes keep to the canvas, not to the thing."""
DARK_SHARE = 0.5
"""What a dark stripe keeps of its colour."""
LINE = 3
"""Width of a box's lines; the box leaves at least GAP pixels round its thing."""
GAP = 0
NEARNESS = {"big": 230, "small": 130}
"""Brightness of things in the depth map."""
FAR = 20
"""And of the ground."""
SEG_COLOURS = {"circle": (255, 120, 0), "square": (0, 200, 120), "triangle": (120, 80, 255), "cross": (255, 0, 120)}
"""The segmentation palette, over black."""


def draw_coverage(shape: str, radius: float, cy: float, cx: float, side: int = SIDE) -> np.ndarray:
    """Gives how much of each pixel the shape covers, 0 to 1 (side, side); its edge is one pixel soft."""
    y, x = np.mgrid[0:side, 0:side] + 0.5
    return np.clip(0.5 - measure_distance(shape, radius, y - cy, x - cx), 0, 1)


def measure_distance(shape: str, r: float, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Gives each pixel's distance to the outline, negative inside."""
    if shape == "circle":
        return np.hypot(y, x) - r
    if shape == "square":
        return np.maximum(abs(y), abs(x)) - 0.88 * r
    if shape == "cross":
        long, short = np.maximum(abs(y), abs(x)), np.minimum(abs(y), abs(x))
        return np.maximum(long - r, short - 0.36 * r)
    return np.maximum(y - 0.8 * r, (abs(x) * 1.8 - (y + r)) / np.hypot(1.8, 1))  # triangle: its tip at -r


def find_item_centre(item: Item) -> tuple[float, float]:
    """Gives row and column in pixels."""
    row, column = PLACES[item.place]
    return CORNER * (row + 0.5) + item.down, CORNER * (column + 0.5) + item.right


def draw_item_coverage(item: Item, side: int = SIDE) -> np.ndarray:
    by, (y, x) = side / SIDE, find_item_centre(item)
    return draw_coverage(item.shape, SIZES[item.size] * by, y * by, x * by, side)


def draw_item_mask(item: Item, side: int = SIDE) -> np.ndarray:
    return draw_item_coverage(item, side) > 0.5


def shade_rows(texture: str, side: int = SIDE, by: float = 1.0) -> np.ndarray:
    """Gives the brightness of each row of a thing (side, 1, 1), in a picture that is `by` times as large."""
    dark = (np.arange(side) // (STRIPE * by)) % 2 == 1
    return np.where(dark & (texture == "striped"), DARK_SHARE, 1.0)[:, None, None]


def blend(picture: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Puts a colour over a picture as far as `cover` (height, width) says."""
    return picture * (1 - cover[..., None]) + cover[..., None] * colour


def draw_frame(mask: np.ndarray) -> np.ndarray:
    """Gives the lines of the box round a mask; their outer edge keeps to a grid of STRIPE pixels, in larger pictures more."""
    by, box = len(mask) / SIDE, np.zeros_like(mask)
    line = round(LINE * by)
    (y0, y1), (x0, x1) = (_outer_edges(np.nonzero(mask.any(axis))[0], line, round(STRIPE * by)) for axis in (1, 0))
    y1, x1 = min(y1, len(mask)), min(x1, len(mask))
    box[y0:y1, x0:x1] = True
    box[y0 + line : y1 - line, x0 + line : x1 - line] = False
    return box


def _outer_edges(covered: np.ndarray, line: int, step: int) -> tuple[int, int]:
    """Finds where a box begins and ends along one axis."""
    first, end = covered[0] - GAP - line, covered[-1] + 1 + GAP + line
    return max(first // step * step, 0), -(-end // step) * step


def render(scene: Scene, side: int = SIDE) -> np.ndarray:
    """Draws a scene, uint8 (side, side, 3)."""
    picture = np.full((side, side, 3), GROUNDS[scene.ground], float)
    for item in scene.items:
        brightness = shade_rows(item.texture, side, side / SIDE)
        picture = blend(picture, draw_item_coverage(item, side), np.array(COLOURS[item.colour]) * brightness)
    for mark in scene.marks:
        item, colour = scene.items[mark.item], np.array(MARKERS[mark.colour])
        cover = (
            draw_frame(draw_item_mask(item, side)).astype(float)
            if mark.form == "box"
            else draw_item_coverage(item, side)
        )
        picture = blend(picture, cover, colour)
    return np.rint(picture).astype(np.uint8)


def draw_depth_map(scene: Scene, side: int = SIDE) -> np.ndarray:
    picture = np.full((side, side, 3), FAR, np.uint8)
    for item in scene.items:
        picture[draw_item_mask(item, side)] = NEARNESS[item.size]
    return picture


def draw_seg_map(scene: Scene, side: int = SIDE) -> np.ndarray:
    picture = np.zeros((side, side, 3), np.uint8)
    for item in scene.items:
        picture[draw_item_mask(item, side)] = SEG_COLOURS[item.shape]
    return picture


assert set(SEG_COLOURS) == set(SHAPES)
