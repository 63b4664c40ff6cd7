"""The host's BOUNDING_BOX as the method takes it."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from ..boxes import Rectangle
from .masks import check_region

ALL = 0
"""The number that stands for all boxes; others count from 1."""


def read_boxes(value: Any, number: int = ALL) -> tuple[Rectangle, ...]:
    """Reads the boxes that a node gives (one, a list, or a list for each picture), or only the one of that number."""
    boxes = tuple(_list_boxes(value))
    if not boxes:
        raise ValueError("There are no boxes, expected one at least: draw one on the canvas, or disconnect them.")
    if number > len(boxes):
        raise ValueError(
            f"Box number is {number}, expected at most {len(boxes)}: draw another box, or type a smaller number."
        )
    return boxes if number == ALL else (boxes[number - 1],)


def _list_boxes(value: Any) -> Iterator[Rectangle]:
    if isinstance(value, Mapping):
        yield _read_box(value)
        return
    pictures = [entry for entry in value or () if isinstance(entry, list | tuple)]
    if len(pictures) > 1:
        raise ValueError(
            f"The boxes are those of {len(pictures)} pictures, expected one picture's: give each its own node."
        )
    for entry in pictures[0] if pictures else value or ():
        yield _read_box(entry)


def _read_box(entry: Any) -> Rectangle:
    try:
        box = Rectangle(*(round(entry[side]) for side in Rectangle._fields))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(
            "The boxes hold something without x, y, width and height in pixels, expected boxes: connect a node that gives such."
        ) from None
    if box.width < 1 or box.height < 1:
        raise ValueError(
            f"A box of {box.width} x {box.height} pixels is empty, expected one with some inside: CoLoGen Read Grounding gives "
            f"such a one if it found nothing."
        )
    return box


def read_place(region: Tensor | None, boxes: Any, number: int) -> dict[str, Any]:
    """Reads where a source may be read, by a MASK or by boxes, as fields of Reading.

    Not both (our choice): whether their sum or their overlap is meant, only the user can say.
    """
    if region is not None and boxes is not None:
        raise ValueError(
            "Both region and boxes are connected, expected one of them: disconnect the other, or join them as masks."
        )
    return dict(
        region=None if region is None else check_region(region),
        boxes=() if boxes is None else read_boxes(boxes, number),
    )
