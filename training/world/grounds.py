"""Grounds: what things stand before, drawn from a horizon and a seed."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

SIDE = 128
"""A picture's side, in pixels."""
HORIZONS = (44, 76)
"""From and to which row a horizon can be."""
SEEDS = 4096
"""Seeds that a ground can have."""
Colour = tuple[int, ...]
Draw = ImageDraw.ImageDraw


def vary(rng: np.random.Generator, colour: Colour, by: int = 10) -> Colour:
    return tuple(int(np.clip(level + rng.integers(-by, by + 1), 0, 255)) for level in colour)


def fade(draw: Draw, top: int, end: int, upper: Colour, lower: Colour) -> None:
    """Fills the rows from `top` to `end` with a gradient."""
    for y in range(top, end):
        share = (y - top) / max(1, end - top - 1)
        draw.line((0, y, SIDE, y), fill=tuple(round(a + (b - a) * share) for a, b in zip(upper, lower)))


def draw_beach(rng: np.random.Generator, draw: Draw, horizon: int) -> None:
    sand = horizon + int(rng.integers(10, 20))
    fade(draw, 0, horizon, vary(rng, (120, 190, 240)), vary(rng, (190, 225, 250)))
    draw.rectangle((0, horizon, SIDE, sand), fill=vary(rng, (40, 130, 190)))
    fade(draw, sand, SIDE, vary(rng, (240, 220, 165)), vary(rng, (225, 200, 140)))


def draw_meadow(rng: np.random.Generator, draw: Draw, horizon: int) -> None:
    hill = int(rng.integers(-20, 80))
    fade(draw, 0, horizon, vary(rng, (140, 200, 245)), vary(rng, (215, 235, 250)))
    draw.ellipse((hill, horizon - 14, hill + 90, horizon + 40), fill=vary(rng, (110, 175, 90)))
    fade(draw, horizon, SIDE, vary(rng, (120, 190, 90)), vary(rng, (80, 150, 65)))


def draw_night(rng: np.random.Generator, draw: Draw, horizon: int) -> None:
    fade(draw, 0, horizon, vary(rng, (15, 18, 50)), vary(rng, (45, 45, 95)))
    for _ in range(14):
        draw.point((int(rng.integers(SIDE)), int(rng.integers(horizon))), fill=(240, 240, 210))
    moon = int(rng.integers(8, 104))
    draw.ellipse((moon, 6, moon + 16, 22), fill=(245, 240, 200))
    fade(draw, horizon, SIDE, vary(rng, (30, 45, 50)), vary(rng, (18, 28, 34)))


def draw_snow(rng: np.random.Generator, draw: Draw, horizon: int) -> None:
    fade(draw, 0, horizon, vary(rng, (185, 205, 225)), vary(rng, (220, 230, 240)))
    for _ in range(2):
        x, height = int(rng.integers(-20, 110)), int(rng.integers(20, 36))
        peak = [(x, horizon), (x + 30, horizon - height), (x + 60, horizon)]
        draw.polygon(peak, fill=vary(rng, (160, 175, 195)))
    fade(draw, horizon, SIDE, vary(rng, (250, 252, 255), 4), vary(rng, (225, 235, 245)))


def draw_room(rng: np.random.Generator, draw: Draw, horizon: int) -> None:
    window = int(rng.integers(10, 80))
    draw.rectangle((0, 0, SIDE, horizon), fill=vary(rng, (230, 205, 185), 15))
    draw.rectangle(
        (window, 10, window + 34, horizon - 8), fill=vary(rng, (180, 220, 245)), outline=(250, 250, 250), width=3
    )
    draw.rectangle((0, horizon, SIDE, SIDE), fill=vary(rng, (165, 115, 75), 12))
    draw.line((0, horizon, SIDE, horizon), fill=(245, 240, 235), width=3)


def draw_street(rng: np.random.Generator, draw: Draw, horizon: int) -> None:
    draw.rectangle((0, 0, SIDE, horizon), fill=vary(rng, (205, 220, 235)))
    x = 0
    while x < SIDE:
        width, height = int(rng.integers(18, 34)), int(rng.integers(18, horizon - 4))
        draw.rectangle((x, horizon - height, x + width - 2, horizon), fill=vary(rng, (160, 135, 130), 25))
        x += width
    draw.rectangle((0, horizon, SIDE, SIDE), fill=vary(rng, (95, 95, 100)))
    for x in range(int(rng.integers(-20, 0)), SIDE, 32):
        draw.rectangle((x, horizon + 22, x + 16, horizon + 26), fill=(235, 235, 220))


GROUNDS: dict[str, Callable[[np.random.Generator, Draw, int], None]] = {
    "beach": draw_beach,
    "meadow": draw_meadow,
    "street": draw_street,
    "snow": draw_snow,
    "night": draw_night,
    "room": draw_room,
}


@lru_cache(maxsize=64)
def draw_ground(kind: str, horizon: int, seed: int) -> np.ndarray:
    """Draws a ground, uint8 (SIDE, SIDE, 3)."""
    picture = Image.new("RGB", (SIDE, SIDE))
    GROUNDS[kind](np.random.default_rng(seed), ImageDraw.Draw(picture), horizon)
    pixels = np.array(picture)
    pixels.setflags(write=False)
    return pixels
