"""COCO-Stuff 164k.

images/SPLIT/000000000009.jpg
annotations/SPLIT/000000000009.png                  classes less 1: 0 to 181, 255 nothing; or
annotations/SPLIT/000000000009_labelTrainIds.png    the 171 that are used: 0 to 170, 255 nothing
annotations/captions_SPLIT.json                     COCO's own captions, if there
annotations/instances_SPLIT.json                    COCO's own masks, if there: else regions of a class
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..formats.palettes import COCO_STUFF, USED
from ..formats.picture_files import BrokenFile, decode_labels, decode_picture, read_bytes
from ..formats.regions import colour_labels, find_regions
from ..sample import Sample, Thing
from .coco_json import CocoJson, load_coco, make_thing
from .coco_labels import NAMES, THINGS
from .listing import check_any, list_pictures
from .reader import ListedReader

TRAIN_IDS = "_labelTrainIds"
NOTHING = 255


@dataclass(frozen=True)
class CocoStuff(ListedReader):
    """Pictures with a class at every pixel, captions and masks."""

    split: str = "train2017"

    PATTERN: ClassVar[str] = "images/*/*.jpg"
    LAYOUT: ClassVar[str] = "images/SPLIT/X.jpg, annotations/SPLIT/X.png or X_labelTrainIds.png, captions_SPLIT.json"

    def list_entries(self) -> Sequence[tuple[str, Path]]:
        return list(
            check_any(list_pictures(self.root / "images" / self.split), "picture", self.root / "images").items()
        )

    def _load_list(self, name: str) -> CocoJson | None:
        path = self.root / "annotations" / f"{name}_{self.split}.json"
        return load_coco(path) if path.exists() else None

    @cached_property
    def captions(self) -> dict[int, str]:
        """Image -> the first of its captions, about five."""
        captions = self._load_list("captions")
        if captions is None:
            return {}
        return {image: str(some[0].get("caption", "")).strip() for image, some in captions.annotations.items()}

    @cached_property
    def instances(self) -> CocoJson | None:
        return self._load_list("instances")

    def read_entry(self, id: str, entry: Path) -> Sample:
        labels = self.labels(id)
        picture = decode_picture(read_bytes(entry), entry.name)
        if labels.shape != picture.shape[:2]:
            raise BrokenFile(f"the labels of {id} are {labels.shape[::-1]}, the picture {picture.shape[1::-1]}")
        image = int(id) if id.isdecimal() else 0
        seg = colour_labels(labels, COCO_STUFF)
        return Sample(id, picture, self.captions.get(image, ""), self.things(image, labels), {"seg": seg})

    def labels(self, id: str) -> np.ndarray:
        """Reads classes 0 to 181, whichever form the file has."""
        folder = self.root / "annotations" / self.split
        path = folder / f"{id}.png"
        if path.exists():
            return decode_labels(read_bytes(path), path.name)
        path = folder / f"{id}{TRAIN_IDS}.png"
        return make_train_ids()[decode_labels(read_bytes(path), path.name).astype(np.uint8)]

    def things(self, image: int, labels: np.ndarray) -> tuple[Thing, ...]:
        if self.instances is None:
            return find_regions(labels, {number - 1: name for number, name in NAMES.items() if number <= THINGS})
        names = self.instances.categories
        annotations = self.instances.annotations.get(image, [])
        single = [annotation for annotation in annotations if not annotation.get("iscrowd")]
        things = [make_thing(one, labels.shape, "", names.get(one["category_id"], "")) for one in single]
        return tuple(thing for thing in things if thing)


def make_train_ids() -> np.ndarray:
    """Makes the class of each number in the form with 171 classes."""
    table = np.full(256, NOTHING, np.uint8)
    table[: len(USED)] = USED
    return table
