"""ADE20K, as the scene parsing challenge of 2016 packs it.

images/SPLIT/ADE_train_00000001.jpg    annotations/SPLIT/ADE_train_00000001.png (0 other, 1 to 150)
objectInfo150.txt                      names of classes, in the last column of a table
sceneCategories.txt                    ADE_train_00000001 airport_terminal
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from ..formats.palettes import ADE20K
from ..formats.picture_files import BrokenFile, decode_labels, decode_picture, read_bytes
from ..formats.regions import colour_labels, find_regions
from ..sample import Sample
from .listing import check_any, list_pictures
from .reader import ListedReader


@dataclass(frozen=True)
class Ade20k(ListedReader):
    """Pictures of scenes with a class at every pixel."""

    split: str = "training"

    PATTERN: ClassVar[str] = "images/*/*.jpg"
    LAYOUT: ClassVar[str] = "ADEChallengeData2016: images/SPLIT/X.jpg, annotations/SPLIT/X.png, objectInfo150.txt"

    def list_entries(self) -> Sequence[tuple[str, Path]]:
        check_any(self.names, "table of classes objectInfo150.txt", self.root)
        return list(
            check_any(list_pictures(self.root / "images" / self.split), "picture", self.root / "images").items()
        )

    @cached_property
    def names(self) -> Mapping[int, str]:
        """Class -> the first of its synonyms."""
        lines = self.read_lines("objectInfo150.txt")
        rows = [line.split("\t") for line in lines if line[:1].isdigit()]
        return {int(row[0]): row[-1].split(",")[0].strip() for row in rows}

    @cached_property
    def scenes(self) -> Mapping[str, str]:
        """Our choice of a caption: the set has no other words for a whole picture."""
        pairs = (line.split(maxsplit=1) for line in self.read_lines("sceneCategories.txt") if len(line.split()) > 1)
        return {name: scene.replace("_", " ").strip() for name, scene in pairs}

    def read_lines(self, name: str) -> list[str]:
        path = self.root / name
        return read_bytes(path).decode("utf-8", "replace").splitlines() if path.exists() else []

    def read_entry(self, id: str, entry: Path) -> Sample:
        labels = decode_labels(read_bytes(self.root / "annotations" / self.split / f"{id}.png"), f"{id}.png")
        picture = decode_picture(read_bytes(entry), entry.name)
        if labels.shape != picture.shape[:2]:
            raise BrokenFile(f"{id}.png is {labels.shape[::-1]}, the picture {picture.shape[1::-1]}")
        maps = {"seg": colour_labels(labels, ADE20K, first=1)}
        return Sample(id, picture, self.scenes.get(id, ""), find_regions(labels, self.names), maps)
