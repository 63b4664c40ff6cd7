"""Scenes as pictures, masks and control maps; all uint8 or bool arrays of SIDE x SIDE."""

import numpy as np

from .grounds import SIDE, draw_ground
from .scene import SIZES, Scene, Thing
from .stickers import CLASSES, NAMED, draw_sticker

SEG_COLOURS = {
    "animal": (255, 120, 0),
    "snack": (0, 200, 120),
    "vehicle": (120, 80, 255),
    "plant": (255, 0, 120),
    "object": (0, 160, 255),
}
"""The segmentation palette, over black; unnamed things are white."""
UNNAMED_COLOUR = (255, 255, 255)
THING_LEVELS, FAR = (130, 245), (70, 15)
"""Brightness in the depth map: of the farthest and the nearest thing; of the ground's foot and its horizon."""


def find_part(thing: Thing) -> tuple[np.ndarray, int, int]:
    """Gives a thing's sticker, and the row and column of the picture where it begins."""
    sticker = draw_sticker(thing.sticker, SIZES[thing.size], thing.hue)
    height, width = sticker.shape[:2]
    return sticker, thing.y - height // 2, thing.x - width // 2


def clip_part(thing: Thing) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Gives the part of a thing's sticker that lies in the picture, and where."""
    sticker, top, left = find_part(thing)
    height, width = sticker.shape[:2]
    rows, columns = slice(max(-top, 0), max(SIDE - top, 0)), slice(max(-left, 0), max(SIDE - left, 0))
    place = slice(max(top, 0), max(top + height, 0)), slice(max(left, 0), max(left + width, 0))
    return sticker[rows, columns], place


def put_thing(picture: np.ndarray, thing: Thing) -> None:
    """Puts a thing into a picture (float), as far as it lies in it."""
    sticker, place = clip_part(thing)
    picture[place] += sticker[..., 3:] * (sticker[..., :3] - picture[place])


def render(scene: Scene) -> np.ndarray:
    """Draws a scene, uint8 (SIDE, SIDE, 3)."""
    picture = draw_ground(scene.ground, scene.horizon, scene.seed).astype(np.float32)
    for thing in scene.things:
        put_thing(picture, thing)
    return np.rint(picture).astype(np.uint8)


def draw_thing_mask(thing: Thing) -> np.ndarray:
    """Finds the pixels of a thing, hidden ones too."""
    mask, (sticker, place) = np.zeros((SIDE, SIDE), bool), clip_part(thing)
    mask[place] = sticker[..., 3] > 0.5
    return mask


def find_visible_masks(scene: Scene) -> list[np.ndarray]:
    """Finds the pixels in which each thing is seen."""
    free, masks = np.ones((SIDE, SIDE), bool), []
    for thing in reversed(scene.things):
        mask = draw_thing_mask(thing)
        masks.append(mask & free)
        free &= ~mask
    return masks[::-1]


def draw_depth_map(scene: Scene) -> np.ndarray:
    """Draws what is in front brighter; the ground grows darker towards its horizon."""
    rows = np.full(SIDE, FAR[1], float)
    rows[scene.horizon :] = np.linspace(FAR[1], FAR[0], SIDE - scene.horizon)
    picture = np.repeat(np.repeat(rows[:, None, None], SIDE, 1), 3, 2)
    for level, mask in zip(list_depth_levels(scene), find_visible_masks(scene)):
        picture[mask] = level
    return picture.astype(np.uint8)


def list_depth_levels(scene: Scene) -> np.ndarray:
    """Gives the brightness of each thing in the depth map."""
    count = len(scene.things)
    return np.linspace(*THING_LEVELS, max(2, count))[max(2, count) - count :]


def draw_seg_map(scene: Scene) -> np.ndarray:
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    for thing, mask in zip(scene.things, find_visible_masks(scene)):
        picture[mask] = SEG_COLOURS[NAMED[thing.sticker]] if thing.is_named else UNNAMED_COLOUR
    return picture


assert set(SEG_COLOURS) == set(CLASSES)
