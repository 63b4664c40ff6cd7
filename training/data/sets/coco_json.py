"""COCO's lists of images, categories and annotations, as RefCOCO, LVIS and COCO itself write them."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....prw.files.regular_file import open_regular
from ....prw.files.validate import shorten
from ..box import Size
from ..formats.picture_files import BrokenFile
from ..formats.run_length_masks import decode_mask
from ..sample import Thing

WANTED = ("id", "image_id", "category_id", "segmentation", "iscrowd")


@dataclass(frozen=True)
class CocoJson:
    """A list, by its numbers."""

    images: dict[int, dict]
    categories: dict[int, str]
    annotations: dict[int, list[dict]]
    """By image."""


def load_coco(path: Path) -> CocoJson:
    """Loads a list. Polygons become arrays while it is parsed, which takes a third of the memory."""
    try:
        with open_regular(path) as file:
            data = json.load(file, object_hook=strip_annotation)
        annotations = defaultdict(list)
        for annotation in data["annotations"]:
            annotations[annotation["image_id"]].append(annotation)
        categories = {row["id"]: str(row["name"]).replace("_", " ") for row in data.get("categories", [])}
        return CocoJson({row["id"]: row for row in data["images"]}, categories, dict(annotations))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise ValueError(
            f"{path.name} cannot be read as COCO's JSON ({type(error).__name__}: {shorten(error)}): download it again."
        ) from None


def sort_ids(ids: Iterable[Any]) -> list:
    """Sorts numbers of pictures; what a damaged list has in their place comes last."""
    return sorted(ids, key=lambda id: (0, id, "") if isinstance(id, int) else (1, 0, str(id)))


def strip_annotation(entry: dict[str, Any]) -> dict[str, Any]:
    """Drops what nobody reads from an annotation; leaves other objects as they are."""
    if "segmentation" not in entry:
        return entry
    stripped = {key: entry[key] for key in WANTED if key in entry}
    if isinstance(stripped["segmentation"], list):
        try:
            stripped["segmentation"] = [np.asarray(polygon, np.float64) for polygon in stripped["segmentation"]]
        except (TypeError, ValueError):
            pass  # run_length_masks.py says what is wrong with it, if it is ever looked at
    return stripped


def find_complete_kinds(
    annotations: Iterable[dict[str, Any]], categories: Mapping[int, str], unsure: Iterable[int] = ()
) -> dict[int, str]:
    """Finds classes of which every instance in the picture is known: no crowd, and none that the set calls unsure."""
    annotations = list(annotations)
    crowds = {row.get("category_id") for row in annotations if row.get("iscrowd")}
    complete = {row.get("category_id") for row in annotations} - crowds - set(unsure)
    return {number: categories.get(number, "") for number in complete if number is not None}


def check_picture_size(image: dict, size: Size) -> None:
    """Raises if the picture has another size than the list says: polygons would lie elsewhere, and nobody would see it."""
    listed = (image.get("height", size[0]), image.get("width", size[1]))
    if listed != size:
        raise BrokenFile(f"the picture is {size[1]} x {size[0]}, the list has {listed[1]} x {listed[0]}")


def make_thing(annotation: dict, size: Size, name: str, kind: str) -> Thing | None:
    """Makes a thing; None, if its mask has no pixel."""
    mask = decode_mask(annotation.get("segmentation"), size)
    return Thing(name, kind, mask) if mask.any() else None
