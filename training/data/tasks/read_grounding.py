"""Reads all answers of grounding off a generated picture: one box, a mask, or a box an instance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..box import Box, Size, find_box
from ..sample import Thing
from .ground import COLOURS, MIN_OUTLINE, Colours, measure_outline, outline_boxes, paint, read_box, read_mask

MIN_SPOT = 0.0005
"""Painted spots smaller than this share of the picture are no answer."""
MASK_OPACITY = 0.5
"""Opacity, 0 to 1, of the mask that draw_answer lays over the original."""


BoxesAndMask = tuple[list[Box], np.ndarray | None]


@dataclass(frozen=True, eq=False)
class Answer:
    """Where the model says that it is."""

    mask: np.ndarray
    """True where it is; a box's whole inside."""
    boxes: tuple[Box, ...]
    """The largest first."""

    @property
    def largest(self) -> tuple[int, int, int, int]:
        """x, y, width, height of the largest box; all 0 if there is none."""
        return (self.boxes[0] if self.boxes else Box(0, 0, 0, 0)).corner_and_size

    def embed(self, place: tuple[slice, slice], size: Size) -> "Answer":
        """Gives the answer in a picture of that size, whose rows and columns of `place` it was read from."""
        mask = np.zeros(size, bool)
        mask[place] = self.mask
        return Answer(mask, tuple(box.move(place[1].start, place[0].start) for box in self.boxes))


def read_answer(picture: np.ndarray, source: np.ndarray, form: str, colour: str, colours: Colours = COLOURS) -> Answer:
    """Reads a form's answer in one colour; `colours` are all that it could have been painted in."""
    some, mask = READERS[form](picture, source, colour, colours)
    boxes = sorted(some, key=lambda box: (box.x0 - box.x1) * (box.y1 - box.y0))
    return Answer(fill_boxes(boxes, source.shape[:2]) if mask is None else mask, tuple(boxes))


def fill_boxes(boxes: Sequence[Box], size: Size) -> np.ndarray:
    mask = np.zeros(size, bool)
    for box in boxes:
        mask[box.part] = True
    return mask


def read_one_box(picture: np.ndarray, source: np.ndarray, colour: str, colours: Colours) -> BoxesAndMask:
    box = read_box(picture, colour, source, colours)
    return ([] if box is None else [box]), None


def read_one_mask(picture: np.ndarray, source: np.ndarray, colour: str, colours: Colours) -> BoxesAndMask:
    """Reads the mask without specks, and one box round all of it."""
    mask = np.zeros(source.shape[:2], bool)
    for spot in find_spots(read_mask(picture, source, colour, colours=colours)):
        mask |= spot
    return ([find_box(mask)] if mask.any() else []), mask


def read_all_boxes(picture: np.ndarray, source: np.ndarray, colour: str, colours: Colours) -> BoxesAndMask:
    """Reads a box from every painted spot that is an outline."""
    boxes = []
    for spot in find_spots(read_mask(picture, source, colour, colours=colours)):
        box = find_box(spot)
        if measure_outline(spot[box.part]) >= MIN_OUTLINE:
            boxes.append(box)
    return boxes, None


READERS = {"box": read_one_box, "mask": read_one_mask, "instance": read_one_box, "detect": read_all_boxes}
"""How each of FORMS is read: boxes, and a mask if it is not their inside."""


def find_spots(mask: np.ndarray) -> list[np.ndarray]:
    """Lists the connected parts of a mask that are no specks."""
    if not mask.any():
        return []
    part, spots = find_box(mask).part, list[np.ndarray]()
    labels, _ = ndimage.label(mask[part], np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    for i in np.flatnonzero(sizes >= MIN_SPOT * mask.size):
        spots.append(np.zeros_like(mask))
        spots[-1][part] = labels == i + 1
    return spots


def draw_answer(source: np.ndarray, answer: Answer, form: str, rgb: Sequence[int]) -> np.ndarray:
    """Paints the answer on the original, as the training data do."""
    if not answer.boxes:
        return source
    if form == "mask":
        return paint(source, answer.mask, rgb, MASK_OPACITY)
    things = [Thing("", "", fill_boxes([box], source.shape[:2])) for box in answer.boxes]
    return paint(source, outline_boxes(things, source.shape[:2]), rgb, 1.0)
