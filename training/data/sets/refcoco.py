"""RefCOCO, RefCOCO+ and RefCOCOg, as their own API lays them out.

    NAME/instances.json, NAME/refs(unc).p      NAME is refcoco, refcoco+ or refcocog
    images/mscoco/images/train2014/COCO_train2014_000000000009.jpg

A referred object's `file_name` is not its picture's; that stands in instances.json.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from ..formats.picture_files import BrokenFile, decode_picture, join_below, read_bytes
from ..formats.plain_pickle import load_plain
from ..sample import Sample, Thing
from .coco_json import CocoJson, check_picture_size, find_complete_kinds, load_coco, make_thing, sort_ids
from .listing import check_any
from .reader import ListedReader

IMAGES = "images/mscoco/images/train2014"


@dataclass(frozen=True)
class RefCoco(ListedReader):
    """Things by the phrases that refer to them."""

    split: str = "train"
    by: str = "unc"
    """Who split it: unc, google or, for refcocog, umd; google's shares pictures between its splits."""
    images: str = ""
    """Where the pictures of train2014 lie, if not below the path."""

    NAME: ClassVar[str] = "refcoco"
    LAYOUT: ClassVar[str] = f"NAME/instances.json, NAME/refs(BY).p, {IMAGES}/COCO_train2014_X.jpg"

    @classmethod
    def matches(cls, path: str) -> bool:
        return (Path(path) / cls.NAME / "instances.json").is_file()

    @cached_property
    def coco(self) -> CocoJson:
        return load_coco(self.root / self.NAME / "instances.json")

    @cached_property
    def phrases(self) -> Mapping[int, Mapping[int, list[str]]]:
        """Image -> annotation -> phrases that refer to it and to no other one there."""
        path = self.root / self.NAME / f"refs({self.by}).p"
        said: dict[int, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
        try:
            for ref in load_plain(path):
                if ref["split"] == self.split:
                    for sentence in ref["sentences"]:
                        said[ref["image_id"]][str.strip(sentence["sent"])].add(ref["ann_id"])
        except (BrokenFile, TypeError, KeyError) as error:
            raise ValueError(
                str(error)
                if isinstance(error, BrokenFile)
                else f"{path.name} holds no list of references: download it again."
            ) from None
        by_image: dict[int, dict[int, list[str]]] = {}
        for image, phrases in said.items():
            by_image[image] = defaultdict(list)
            for phrase, ids in phrases.items():
                if len(ids) == 1 and phrase:
                    by_image[image][ids.pop()].append(phrase)
        return by_image

    def list_entries(self) -> Sequence[tuple[str, int]]:
        images = check_any(self.phrases, f"reference of the split {self.split}", self.root / self.NAME)
        return [(str(image), image) for image in sort_ids(images)]

    def read_entry(self, id: str, entry: int) -> Sample:
        if entry not in self.coco.images:
            raise BrokenFile("instances.json does not know the picture")
        name = str(self.coco.images[entry].get("file_name", ""))
        folder = self.root / IMAGES if not self.images else self.root / self.images
        picture = decode_picture(read_bytes(join_below(folder, name)), name)
        check_picture_size(self.coco.images[entry], picture.shape[:2])
        return Sample(id, picture, "", self.things(entry, picture.shape[:2]))

    def things(self, image: int, size: tuple[int, int]) -> tuple[Thing, ...]:
        """Makes a thing of each phrase; what nobody refers to is there for its class alone."""
        annotations = self.coco.annotations.get(image, [])
        kinds, things = find_complete_kinds(annotations, self.coco.categories), []
        for annotation in annotations:
            kind = kinds.get(annotation.get("category_id", -1), "")
            names = self.phrases[image].get(annotation.get("id", -1), [""] if kind else [])
            things += [make_thing(annotation, size, name, kind) for name in names]
        return tuple(thing for thing in things if thing)


@dataclass(frozen=True)
class RefCocoPlus(RefCoco):
    NAME: ClassVar[str] = "refcoco+"


@dataclass(frozen=True)
class RefCocoG(RefCoco):
    by: str = "umd"
    NAME: ClassVar[str] = "refcocog"
