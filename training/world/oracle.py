"""Reads a picture of the world back into a scene: the ground, and which things, where, of what size
and hue, in front of what.

The ground is compared with drawings of every kind. Things are found one after the other: what explains most of what
differs from the ground comes first, and its pixels are taken out.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_dilation

from .grounds import GROUNDS, HORIZONS, SIDE, draw_ground
from .matching import TOLERANCE, Evidence, Match, find_matches
from .render import draw_thing_mask, find_part
from .scene import Scene, Thing
from .stickers import NAMED

MAX_DOUBT = 0.2
"""What may stay unexplained of a thing."""
MIN_SEEN = 0.35
"""The share of a thing that must be seen."""
MAX_THINGS = 6
MARGIN = 10
"""Pixels that a thing's centre is from the border at least."""
CELLS = 16
"""Side of the small pictures with which grounds are compared."""
DRAWINGS = 20
"""Of each ground, for every fourth horizon."""
MIN_OVERLAP = 12
"""Pixels that two things share before one is in front."""


Ground = tuple[str, int, int]
"""Kind, horizon and seed."""


class Reading(NamedTuple):
    """What a picture shows."""

    scene: Scene
    """Things from behind to the front."""

    def find(self, sticker: str, hue: str | None = None) -> list[Thing]:
        """Lists the things of a name, and of a hue if it is given."""
        return [thing for thing in self.scene.things if thing.sticker == sticker and hue in (None, thing.hue)]


@lru_cache(maxsize=1)
def draw_grounds() -> tuple[list[Ground], np.ndarray]:
    """Draws every ground small: what each is, and float32 (grounds, CELLS * CELLS, 3)."""
    names = [(kind, horizon, seed) for kind in GROUNDS for horizon in range(*HORIZONS, 4) for seed in range(DRAWINGS)]
    return names, np.stack([average_cells(draw_ground(*name)) for name in names])


def average_cells(picture: np.ndarray) -> np.ndarray:
    step = SIDE // CELLS
    small = picture.reshape(CELLS, step, CELLS, step, 3).mean((1, 3), dtype=np.float32)
    return small.reshape(-1, 3)


def read_ground(picture: np.ndarray) -> Ground:
    """Gives the nearest drawing, far pixels counting alike."""
    names, drawings = draw_grounds()
    apart = abs(drawings - average_cells(picture))
    far = np.maximum(np.maximum(apart[..., 0], apart[..., 1]), apart[..., 2])
    return names[int(np.minimum(far, TOLERANCE).sum(1).argmin())]


def compare_with_ground(picture: np.ndarray, ground: Ground) -> Evidence:
    drawn = draw_ground(*ground).astype(np.float32)
    return Evidence(picture.astype(np.float32), drawn, np.ones((SIDE, SIDE), np.float32))


def read_scene(picture: np.ndarray, names: Sequence[str] = tuple(NAMED)) -> Reading:
    """Reads uint8 (SIDE, SIDE, 3); `names` are the stickers that could be there."""
    ground = read_ground(picture)
    evidence = compare_with_ground(picture, ground)
    things = [match.thing for match in find_things(evidence, names)]
    return Reading(Scene(*ground, tuple(sort_by_depth(evidence.picture, things))))


def find_things(evidence: Evidence, names: Sequence[str]) -> list[Match]:
    """Takes the best matches that share no pixels out of the picture, until none is sure."""
    found: list[Match] = []
    while len(found) < MAX_THINGS:
        taken, claimed = np.zeros((2, SIDE, SIDE), bool)
        for match in filter(is_sure, find_matches(evidence, names)):
            mask = binary_dilation(draw_thing_mask(match.thing))
            if not (claimed & mask).any() and len(found) < MAX_THINGS:
                found.append(match)
                taken |= mask
            claimed |= mask
        if not taken.any():
            break
        evidence.free[taken] = 0
    return found


def is_sure(match: Match) -> bool:
    """Says whether a thing is there; one of which half lies outside is none."""
    x, y = match.thing.x, match.thing.y
    inside = MARGIN < min(x, y) and max(x, y) < SIDE - MARGIN
    return inside and match.gain > 0 and match.doubt < MAX_DOUBT and match.seen > MIN_SEEN


def sort_by_depth(picture: np.ndarray, things: Sequence[Thing]) -> list[Thing]:
    """Sorts from behind to the front: of two things that share pixels, that one is in front which these look like."""
    left, order = list(things), []
    while left:
        # a circle, which no true picture has, is cut at the first thing
        back = next((one for one in left if not any(is_behind(picture, other, one) for other in left)), left[0])
        left.remove(back)
        order.append(back)
    return order


def is_behind(picture: np.ndarray, thing: Thing, other: Thing) -> bool:
    """Says whether a thing is behind another; things that share no pixels may stand either way."""
    shared = draw_thing_mask(thing) & draw_thing_mask(other)
    if shared.sum() < MIN_OVERLAP:
        return False
    return measure_error(picture, other, shared) < measure_error(picture, thing, shared)


def measure_error(picture: np.ndarray, thing: Thing, where: np.ndarray) -> float:
    sticker, top, left = find_part(thing)
    ys, xs = np.nonzero(where)
    return float(((picture[ys, xs] - sticker[ys - top, xs - left, :3]) ** 2).mean())


def read_subject(picture: np.ndarray, candidates: Sequence[str]) -> Match | None:
    """Finds which of some unnamed things the picture shows, and where; None if it shows none of them."""
    evidence = compare_with_ground(picture, read_ground(picture))
    return next(filter(is_sure, find_matches(evidence, candidates)), None)
