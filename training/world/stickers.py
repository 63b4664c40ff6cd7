"""The pictures of things: named ones, and unnamed ones that only a source can show.

One atlas of square cells and a list of their names, in its order; tests/tools/make_stickers.py makes both.
"""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent / "pictures"
ATLAS, LIST = "stickers.webp", "stickers.json"
CELL, COLUMNS = 64, 27
KINDS = ("named", "pool", "held out")
"""Things that words name; unnamed ones of training; unnamed ones that training never shows."""
CLASSES = {
    "animal": (
        "fox", "cat", "dog", "frog", "panda", "pig", "lion", "rabbit", "penguin", "owl", "whale", "octopus", "turtle",
        "butterfly", "crab", "ladybug",
    ),
    "snack": (
        "pizza", "apple", "banana", "strawberry", "doughnut", "hamburger", "ice cream", "cake", "watermelon",
    ),
    "vehicle": ("car", "bus", "rocket", "sailboat", "tractor", "airplane"),
    "plant": ("tree", "sunflower", "mushroom", "cactus"),
    "object": (
        "house", "tent", "balloon", "guitar", "gift", "umbrella", "crown", "hat", "lamp", "key", "ball", "trophy",
    ),
}  # fmt: skip
"""Named things by what they are."""
NAMED = {name: kind for kind, names in CLASSES.items() for name in names}
HUES = {"red": 0, "yellow": 40, "green": 85, "blue": 152, "purple": 197}
"""Hues, of 256."""
COLOURED = {
    "apple": 6, "car": 254, "balloon": 2, "umbrella": 168, "octopus": 1, "whale": 133, "crab": 14,
    "tree": 99, "cactus": 56, "key": 32, "mushroom": 6, "ball": 13, "guitar": 6, "airplane": 143, "ladybug": 254,
}  # fmt: skip
"""Things of one colour, which can have another, and the hue that they have by themselves."""
MIN_TURN = 30
"""Between a thing's own hue and one that it can be given."""


def list_hues(name: str) -> list[str]:
    """Lists the colours that a thing can be given."""
    if name not in COLOURED:
        return []
    return [hue for hue, place in HUES.items() if abs((place - COLOURED[name] + 128) % 256 - 128) > MIN_TURN]


@lru_cache(maxsize=1)
def list_stickers() -> dict[str, tuple[str, ...]]:
    """Lists the names of each kind."""
    return {kind: tuple(names) for kind, names in json.loads((FOLDER / LIST).read_text()).items()}


@lru_cache(maxsize=1)
def open_atlas() -> dict[str, Image.Image]:
    """Gives every sticker, RGBA, cropped to what it shows."""
    with Image.open(FOLDER / ATLAS) as file:
        atlas, stickers = file.convert("RGBA"), {}
    names = [name for kind in KINDS for name in list_stickers()[kind]]
    for i, name in enumerate(names):
        x, y = i % COLUMNS * CELL, i // COLUMNS * CELL
        cell = atlas.crop((x, y, x + CELL, y + CELL))
        stickers[name] = cell.crop(cell.getbbox())
    return stickers


@lru_cache(maxsize=8192)
def draw_sticker(name: str, side: int, hue: str = "") -> np.ndarray:
    """Draws a sticker whose longer side is `side`: float32 (height, width, 4), colours 0 to 255 and opacity 0 to 1."""
    picture = open_atlas()[name]
    scale = side / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    pixels = np.array(picture.resize(size, Image.Resampling.LANCZOS), np.float32)
    if hue:
        pixels[..., :3] = turn_hue(pixels[..., :3].astype(np.uint8), HUES[hue] - COLOURED[name])
    pixels[..., 3] /= 255
    pixels.setflags(write=False)
    return pixels


def turn_hue(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Turns the hue of every pixel, of 256; a pixel's greatest and smallest channel stay what they are."""
    tinted = np.array(Image.fromarray(pixels).convert("HSV"))
    tinted[..., 0] += np.uint8(turn % 256)
    return np.array(Image.fromarray(tinted, "HSV").convert("RGB"))
