"""LVIS v1 and v0.5 on COCO's pictures of 2017.

    lvis_v1_SPLIT.json or lvis_v0.5_SPLIT.json, here or in annotations/
    train2017/000000000009.jpg, val2017/...     v1's splits mix the two

v1 names a picture by its address, v0.5 by its name of 2014.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from ..formats.picture_files import BrokenFile, decode_picture, join_below, read_bytes
from ..sample import Sample
from .coco_json import CocoJson, kinds_of, load_coco, refuse_other_size, thing_of
from .listing import first_of, some
from .reader import Listed

COCO_2017 = len("000000000009.jpg")


@dataclass(frozen=True)
class Lvis(Listed):
    split: str = "train"
    images: str = ""
    """Where train2017 and val2017 lie, if not below the path."""

    MARK: ClassVar[str] = "**/lvis_v*.json"
    LAYOUT: ClassVar[str] = "lvis_v1_SPLIT.json or lvis_v0.5_SPLIT.json, train2017/X.jpg, val2017/X.jpg"

    @cached_property
    def coco(self) -> CocoJson:
        names = [
            f"{folder}lvis_{version}_{self.split}.json" for version in ("v1", "v0.5") for folder in ("", "annotations/")
        ]
        return load_coco(some(first_of(self.root, names), f"lvis_v1_{self.split}.json", self.root))

    def listed(self) -> Sequence[tuple[str, int]]:
        found = some(self.coco.annotations, "annotation", self.root)
        return [(str(image), image) for image in sorted(found) if image in self.coco.images]

    def file(self, image: dict) -> Path:
        folder = self.root / self.images
        if url := image.get("coco_url"):
            return join_below(folder, urlsplit(str(url)).path.lstrip("/"))
        name = str(image.get("file_name", ""))[-COCO_2017:]
        return join_below(folder / ("train2017" if self.split == "train" else "val2017"), name)

    def sample(self, id: str, entry: int) -> Sample:
        image, annotations = self.coco.images[entry], self.coco.annotations[entry]
        unsure = image.get("not_exhaustive_category_ids", ())
        if not isinstance(unsure, (list, tuple)):
            raise BrokenFile("its not_exhaustive_category_ids is no list")
        kinds = kinds_of(annotations, self.coco.categories, unsure)
        path = self.file(image)
        picture = decode_picture(read_bytes(path), path.name)
        refuse_other_size(image, picture.shape[:2])
        found = [
            thing_of(each, picture.shape[:2], "", kinds[each["category_id"]])
            for each in annotations
            if kinds.get(each["category_id"])
        ]
        return Sample(id, picture, "", tuple(thing for thing in found if thing))
