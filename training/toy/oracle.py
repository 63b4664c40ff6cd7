"""Reads a picture of the built-in world back into a scene, by drawing everything that could be there and comparing.

Each corner is compared with every shape, size, place, colour and texture, and with nothing. The squared error
factors into products with the shapes' coverage alone, so that thousands of drawings cost two matrix products.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .render import draw_coverage, shade_rows
from .scene import COLOURS, CORNER, GROUNDS, PLACES, SHAPES, SIZES, TEXTURES, Item, Scene

REACH = 3
"""Pixels off its centre at which a thing is still looked for: one more than scenes are drawn with."""
MAX_DOUBT = 0.2
"""Share of a thing that may stay unexplained; with more, it does not count as read."""
GROUND_TOLERANCE = 48
"""How far, of 255, a pixel may be from its ground's colour in any channel."""


class Forms(NamedTuple):
    """Every shape x size x offset that a corner can hold."""

    names: list[tuple[str, str, int, int]]
    plain: np.ndarray
    """Coverage (forms, pixels)."""
    shaded: np.ndarray
    """Coverage times each texture's brightness (textures, forms, pixels)."""
    inner: np.ndarray
    """<shaded, shaded>, <shaded, plain>, <plain, plain> (3, textures, forms)."""


class Reading(NamedTuple):
    """What a picture shows."""

    scene: Scene
    doubt: dict[str, float]
    """By place: what stays unexplained there, in units of the thing that was read (or of a small one)."""

    def is_sure(self, place: str) -> bool:
        return self.doubt[place] < MAX_DOUBT


@lru_cache(maxsize=1)
def draw_forms() -> Forms:
    offsets = range(-REACH, REACH + 1)
    names = [(shape, size, y, x) for shape in SHAPES for size in SIZES for y in offsets for x in offsets]
    middle = CORNER / 2
    plain = np.stack([draw_coverage(shape, SIZES[size], middle + y, middle + x, CORNER) for shape, size, y, x in names])
    shaded = np.stack([plain * shade_rows(texture, CORNER)[..., 0] for texture in TEXTURES])
    plain, shaded = plain.reshape(len(names), -1), shaded.reshape(len(TEXTURES), len(names), -1)
    inner = (
        (shaded * shaded).sum(-1),
        (shaded * plain).sum(-1),
        np.broadcast_to((plain * plain).sum(-1), shaded.shape[:2]),
    )
    return Forms(names, plain, shaded, np.stack(inner))


def read_scene(picture: np.ndarray) -> Reading:
    """Reads uint8 (SIDE, SIDE, 3)."""
    picture = picture.astype(float)
    ground = read_ground(picture)
    items, doubt = [], {}
    for place, (row, column) in PLACES.items():
        corner = picture[row * CORNER : (row + 1) * CORNER, column * CORNER : (column + 1) * CORNER]
        item, doubt[place] = read_corner(corner - GROUNDS[ground], np.array(GROUNDS[ground], float), place)
        items += [item] if item else []
    return Reading(Scene(ground, tuple(items)), doubt)


def read_ground(picture: np.ndarray) -> str:
    """Names the ground whose colour most pixels are near to."""
    near = {
        name: int(np.count_nonzero(abs(picture - colour).max(-1) < GROUND_TOLERANCE))
        for name, colour in GROUNDS.items()
    }
    return max(near, key=near.__getitem__)


def read_corner(difference: np.ndarray, ground: np.ndarray, place: str) -> tuple[Item | None, float]:
    """Gives the best drawing of a corner and its doubt, from what the corner differs from its ground."""
    forms, pixels = draw_forms(), difference.reshape(-1, 3)
    colours = np.array(list(COLOURS.values()), float)
    # error(drawing) = |d|^2 - 2 <d, u> + |u|^2 with u = shaded * colour - plain * ground
    cross = np.einsum("tfc,kc->tfk", forms.shaded @ pixels, colours) - (forms.plain @ pixels @ ground)[None, :, None]
    squares, mixed, bare = forms.inner[..., None]
    norms = squares * (colours**2).sum(1) - 2 * mixed * (colours @ ground) + bare * (ground @ ground)
    texture, form, colour = np.unravel_index(np.argmin(norms - 2 * cross), norms.shape)
    total, gain = (pixels**2).sum(), (2 * cross - norms)[texture, form, colour]
    least = norms.min()
    if gain <= 0 or total < 0.5 * least:
        return None, total / least
    shape, size, down, right = forms.names[form]
    item = Item(shape, list(COLOURS)[colour], TEXTURES[texture], size, place, down, right)
    return item, (total - gain) / norms[texture, form, colour]
