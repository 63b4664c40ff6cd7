"""LVIS v1 and v0.5 on COCO's pictures of 2017.

    lvis_v1_SPLIT.json or lvis_v0.5_SPLIT.json, here or in annotations/
    train2017/000000000009.jpg, val2017/...     v1's splits mix the two

v1 names a picture by its address, v0.5 by its name of 2014.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ..formats.picture_files import BrokenFile, decode_picture, join_below, read_bytes
from ..sample import Sample
from .coco_json import CocoJson, check_picture_size, find_complete_kinds, load_coco, make_thing, sort_ids
from .listing import check_any, find_first
from .reader import ListedReader

COCO_2017 = len("000000000009.jpg")


@dataclass(frozen=True)
class Lvis(ListedReader):
    """Things by class, without captions."""

    split: str = "train"
    images: str = ""
    """Where train2017 and val2017 lie, if not below the path."""

    PATTERN: ClassVar[str] = "**/lvis_v*.json"
    LAYOUT: ClassVar[str] = "lvis_v1_SPLIT.json or lvis_v0.5_SPLIT.json, train2017/X.jpg, val2017/X.jpg"

    @cached_property
    def coco(self) -> CocoJson:
        names = [
            f"{folder}lvis_{version}_{self.split}.json" for version in ("v1", "v0.5") for folder in ("", "annotations/")
        ]
        return load_coco(check_any(find_first(self.root, names), f"lvis_v1_{self.split}.json", self.root))

    def list_entries(self) -> Sequence[tuple[str, int]]:
        images = check_any(self.coco.annotations, "annotation", self.root)
        return [(str(image), image) for image in sort_ids(images) if image in self.coco.images]

    def find_picture(self, image: dict[str, Any]) -> Path:
        folder = self.root / self.images
        if url := image.get("coco_url"):
            return join_below(folder, urlsplit(str(url)).path.lstrip("/"))
        name = str(image.get("file_name", ""))[-COCO_2017:]
        return join_below(folder / ("train2017" if self.split == "train" else "val2017"), name)

    def read_entry(self, id: str, entry: int) -> Sample:
        image, annotations = self.coco.images[entry], self.coco.annotations[entry]
        unsure = image.get("not_exhaustive_category_ids", ())
        if not isinstance(unsure, (list, tuple)):
            raise BrokenFile("its not_exhaustive_category_ids is no list")
        kinds = find_complete_kinds(annotations, self.coco.categories, unsure)
        path = self.find_picture(image)
        picture = decode_picture(read_bytes(path), path.name)
        check_picture_size(image, picture.shape[:2])
        things = [
            make_thing(row, picture.shape[:2], "", kinds[row["category_id"]])
            for row in annotations
            if kinds.get(row["category_id"])
        ]
        return Sample(id, picture, "", tuple(thing for thing in things if thing))
