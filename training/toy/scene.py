"""What a picture of the built-in world shows: up to three things on a plain ground, perhaps marked.

A picture has four corners; a thing sits in one of them, off its centre by a few pixels. Big things are near,
small ones far: that is the world's depth.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

Option = TypeVar("Option")
SIDE = 64
"""A picture's side, in pixels."""
CORNER = SIDE // 2
SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = {
    "red": (214, 40, 40),
    "green": (30, 140, 70),
    "blue": (40, 70, 210),
    "yellow": (245, 205, 40),
    "purple": (135, 50, 175),
}
TEXTURES = ("plain", "striped")
SIZES = {"small": 8, "big": 12}
"""Radius in pixels."""
PLACES = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}
"""Row and column of the corner."""
GROUNDS = {"white": (245, 245, 245), "black": (20, 20, 20), "sand": (222, 196, 150), "sky": (160, 205, 240)}
MARKERS = {"lime": (140, 255, 40), "pink": (255, 90, 190)}
"""Colours of answers drawn on a picture; nothing else has them."""
MARK_FORMS = ("box", "paint")
JITTER = 2
"""Pixels that a thing may be off the centre of its corner, each way."""
COUNTS = {1: 0.3, 2: 0.5, 3: 0.2}
"""Share of scenes with so many things."""


@dataclass(frozen=True)
class Item:
    """A thing."""

    shape: str
    colour: str
    texture: str
    size: str
    place: str
    down: int = 0
    """Pixels off the centre of its corner."""
    right: int = 0


@dataclass(frozen=True)
class Mark:
    """An answer: a box round an item, or the item painted over."""

    form: str
    """"box" or "paint"."""
    colour: str
    item: int
    """Its number in the scene."""


@dataclass(frozen=True)
class Scene:
    ground: str
    items: tuple[Item, ...] = ()
    marks: tuple[Mark, ...] = ()

    def at(self, place: str) -> Item | None:
        return next((item for item in self.items if item.place == place), None)

    def change_item(self, index: int, **changes: Any) -> "Scene":
        items = list(self.items)
        items[index] = replace(items[index], **changes)
        return replace(self, items=tuple(items))


def pick(rng: np.random.Generator, options: Iterable[Option]) -> Option:
    """Draws one of the options, all of them alike."""
    choices = list(options)
    return choices[rng.integers(len(choices))]


def draw_item(rng: np.random.Generator, place: str, colour: str | None = None) -> Item:
    down, right = (int(x) for x in rng.integers(-JITTER, JITTER + 1, 2))
    return Item(
        pick(rng, SHAPES), colour or pick(rng, COLOURS), pick(rng, TEXTURES), pick(rng, SIZES), place, down, right
    )


def draw_scene(rng: np.random.Generator, count: int | None = None) -> Scene:
    """Draws a scene of `count` things, or of one to three; no two share a colour, so that each can be named."""
    count = count or int(rng.choice(list(COUNTS), p=list(COUNTS.values())))
    places = [list(PLACES)[i] for i in rng.permutation(len(PLACES))[:count]]
    colours = [list(COLOURS)[i] for i in rng.permutation(len(COLOURS))[:count]]
    items = tuple(draw_item(rng, place, colour) for place, colour in zip(places, colours))
    return Scene(pick(rng, GROUNDS), items)


def add_mark(rng: np.random.Generator, scene: Scene, share: float = 1.0) -> Scene:
    """Marks one of the scene's items, in a share of cases."""
    if rng.random() > share:
        return scene
    return replace(scene, marks=(Mark(pick(rng, MARK_FORMS), pick(rng, MARKERS), int(rng.integers(len(scene.items)))),))


def list_free_places(scene: Scene) -> list[str]:
    return [place for place in PLACES if scene.at(place) is None]
