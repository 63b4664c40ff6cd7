"""What a picture of the world shows: one to four things at free places, on a ground."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..toy.scene import pick
from .grounds import GROUNDS, HORIZONS, SEEDS, SIDE
from .stickers import NAMED, list_hues

SIZES = {"small": 36, "normal": 48}
"""A thing's longer side, in pixels. Two, for each is a picture more of every thing that FLUX has to learn."""
CENTRES = (24, 56, 72, 104)
"""Columns and rows in which things' centres stand. They are tokens' centres, so that a thing looks the same to FLUX wherever it
stands, and few: where a place's name leaves many open, a small FLUX draws a thing in several at once."""
CORNERS = tuple((x, y) for y in (CENTRES[0], CENTRES[-1]) for x in (CENTRES[0], CENTRES[-1]))
"""Centres of things in the four corners."""
ONE_A_PLACE = (CENTRES[0], CENTRES[1], CENTRES[3])
"""Those of CENTRES that leave one position for each place's name."""
MIN_DISTANCE = 0.48
"""Least |dx| + |dy| of two centres, as a share of the sum of both sides."""
TRIES = 60
HUE_SHARE = 0.3
"""Of the things that can have another colour, the share that has."""
MIDDLE = (0.38, 0.62)
"""Between which shares of the picture's side a centre is in the middle."""


@dataclass(frozen=True)
class Thing:
    sticker: str
    x: int
    """Its centre, in pixels."""
    y: int
    size: str = "normal"
    hue: str = ""
    """A row of HUES; empty: its own colours."""

    @property
    def place(self) -> str:
        return name_place(self.x, self.y)

    @property
    def is_named(self) -> bool:
        return self.sticker in NAMED


@dataclass(frozen=True)
class Scene:
    ground: str
    horizon: int
    seed: int
    """Of the ground's details."""
    things: tuple[Thing, ...] = ()
    """From behind to the front."""

    def change_thing(self, index: int, **changes: Any) -> "Scene":
        things = list(self.things)
        things[index] = replace(things[index], **changes)
        return replace(self, things=tuple(things))

    def remove_thing(self, index: int) -> "Scene":
        return replace(self, things=self.things[:index] + self.things[index + 1 :])


def name_place(x: float, y: float) -> str:
    """Gives "top left", "left", "middle" and so on."""
    low, high = MIDDLE
    row = "top" if y < SIDE * low else "bottom" if y > SIDE * high else ""
    column = "left" if x < SIDE * low else "right" if x > SIDE * high else ""
    return f"{row} {column}".strip() or "middle"


PLACES = tuple(name_place(x, y) for y in (0, SIDE / 2, SIDE) for x in (0, SIDE / 2, SIDE))


def are_apart(thing: Thing, other: Thing, distance: float = MIN_DISTANCE) -> bool:
    sides = SIZES[thing.size] + SIZES[other.size]
    return abs(thing.x - other.x) + abs(thing.y - other.y) > sides * distance


def draw_ground_of_scene(rng: np.random.Generator, kinds: Sequence[str] = tuple(GROUNDS)) -> Scene:
    """Draws a scene without things."""
    return Scene(pick(rng, kinds), int(rng.integers(*HORIZONS)), int(rng.integers(SEEDS)))


def place_thing(
    rng: np.random.Generator,
    scene: Scene,
    sticker: str,
    place: str = "",
    distance: float = MIN_DISTANCE,
    sizes: Sequence[str] = tuple(SIZES),
    centres: Sequence[int] = CENTRES,
) -> Thing | None:
    """Tries TRIES positions for a thing, anywhere or in a place: gives a free one, or None."""
    for _ in range(TRIES):
        size = pick(rng, sizes)
        x, y = (int(centre) for centre in rng.choice(centres, 2))
        thing = Thing(sticker, x, y, size)
        if (not place or thing.place == place) and all(are_apart(thing, other, distance) for other in scene.things):
            hues = list_hues(sticker)
            return replace(thing, hue=pick(rng, hues) if hues and rng.random() < HUE_SHARE else "")
    return None


def fill_scene(
    rng: np.random.Generator, scene: Scene, stickers: Sequence[str], distance: float = MIN_DISTANCE
) -> Scene:
    """Puts things into a scene, one after the other; what finds no room is left out."""
    for sticker in stickers:
        thing = place_thing(rng, scene, sticker, distance=distance)
        if thing is not None:
            scene = replace(scene, things=(*scene.things, thing))
    return scene


def show_things(rng: np.random.Generator, stickers: Sequence[str]) -> Scene:
    """Draws a scene with up to four things, each in a corner, where a picture shows things to be drawn elsewhere: a way from one position
    to another is one more thing to learn, and four corners have a quarter of them."""
    corners = rng.permutation(CORNERS)
    things = (Thing(name, int(x), int(y), pick(rng, SIZES)) for name, (x, y) in zip(stickers, corners))
    return replace(draw_ground_of_scene(rng), things=tuple(things))


def draw_names(rng: np.random.Generator, count: int, names: Sequence[str] = tuple(NAMED)) -> list[str]:
    """Draws different names."""
    return [names[i] for i in rng.permutation(len(names))[:count]]


def draw_scene(
    rng: np.random.Generator, low: int = 1, high: int = 4, unnamed: Sequence[str] = (), share: float = 0.2
) -> Scene:
    """Draws a scene of `low` to `high` different things; a share of them is drawn from `unnamed`, if there are any."""
    while True:
        count = int(rng.integers(low, high + 1))
        names = draw_names(rng, count)
        for i, other in enumerate(draw_names(rng, count, unnamed) if unnamed else ()):
            names[i] = other if rng.random() < share else names[i]
        scene = fill_scene(rng, draw_ground_of_scene(rng), [names[i] for i in rng.permutation(count)])
        if len(scene.things) >= low:
            return scene
