"""Reads a picture of the toy world back into a scene, by drawing everything that could be there and comparing.

Each corner is compared with every shape, size, place, colour and texture, and with nothing. The squared error
factors into products with the shapes' coverage alone, so that thousands of drawings cost two matrix products.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .render import coverage, row_brightness
from .scene import COLOURS, CORNER, GROUNDS, PLACES, SHAPES, SIZES, TEXTURES, Item, Scene

REACH = 3
"""Pixels off its centre at which a thing is still looked for: one more than scenes are drawn with."""
MAX_DOUBT = 0.2
"""What is left unexplained, relative to the thing itself, from which on a finding does not count."""


class Forms(NamedTuple):
    """Every shape x size x offset that a corner can hold."""

    names: list[tuple[str, str, int, int]]
    plain: np.ndarray
    """Coverage, (forms, pixels)."""
    shaded: np.ndarray
    """Coverage times brightness for each texture, (textures, forms, pixels)."""
    inner: np.ndarray
    """<shaded, shaded>, <shaded, plain>, <plain, plain>: (3, textures, forms)."""


class Reading(NamedTuple):
    scene: Scene
    doubt: dict[str, float]
    """By place: what stays unexplained there, in units of the thing found (or of a small one)."""

    def is_sure(self, place: str) -> bool:
        return self.doubt[place] < MAX_DOUBT


@lru_cache(maxsize=1)
def draw_forms() -> Forms:
    offsets = range(-REACH, REACH + 1)
    names = [(shape, size, y, x) for shape in SHAPES for size in SIZES for y in offsets for x in offsets]
    middle = CORNER / 2
    plain = np.stack([coverage(shape, SIZES[size], middle + y, middle + x, CORNER) for shape, size, y, x in names])
    shaded = np.stack([plain * row_brightness(texture, CORNER)[..., 0] for texture in TEXTURES])
    plain, shaded = plain.reshape(len(names), -1), shaded.reshape(len(TEXTURES), len(names), -1)
    both = (
        (shaded * shaded).sum(-1),
        (shaded * plain).sum(-1),
        np.broadcast_to((plain * plain).sum(-1), shaded.shape[:2]),
    )
    return Forms(names, plain, shaded, np.stack(both))


def read_scene(picture: np.ndarray) -> Reading:
    """From uint8 (SIDE, SIDE, 3)."""
    picture = picture.astype(float)
    ground = read_ground(picture)
    items, doubt = [], {}
    for place, (row, column) in PLACES.items():
        corner = picture[row * CORNER : (row + 1) * CORNER, column * CORNER : (column + 1) * CORNER]
        item, doubt[place] = read_corner(corner - GROUNDS[ground], np.array(GROUNDS[ground], float), place)
        items += [item] if item else []
    return Reading(Scene(ground, tuple(items)), doubt)


def read_ground(picture: np.ndarray) -> str:
    """The ground colour that most pixels are near to."""
    near = {name: np.count_nonzero(abs(picture - colour).max(-1) < 48) for name, colour in GROUNDS.items()}
    return max(near, key=near.get)


def read_corner(difference: np.ndarray, ground: np.ndarray, place: str) -> tuple[Item | None, float]:
    """The best drawing of a corner, given what it differs from its ground."""
    known, pixels = draw_forms(), difference.reshape(-1, 3)
    colours = np.array(list(COLOURS.values()), float)
    # error(drawing) = |d|^2 - 2 <d, u> + |u|^2 with u = shaded * colour - plain * ground
    across = np.einsum("tfc,kc->tfk", known.shaded @ pixels, colours) - (known.plain @ pixels @ ground)[None, :, None]
    squares, mixed, bare = known.inner[..., None]
    own = squares * (colours**2).sum(1) - 2 * mixed * (colours @ ground) + bare * (ground @ ground)
    texture, form, colour = np.unravel_index(np.argmin(own - 2 * across), own.shape)
    total, gain = (pixels**2).sum(), (2 * across - own)[texture, form, colour]
    least = own.min()
    if gain <= 0 or total < 0.5 * least:
        return None, total / least
    shape, size, down, right = known.names[form]
    item = Item(shape, list(COLOURS)[colour], TEXTURES[texture], size, place, down, right)
    return item, (total - gain) / own[texture, form, colour]
