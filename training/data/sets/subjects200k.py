"""Subjects200K: two pictures of one subject side by side in one, both described, and judged by a model.

Its three collections differ in size: the first two have tiles of 512, the third (a repository of its own) of 1024.
How wide the border is, sources disagree about (8 or 16 pixels): both numbers are settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..formats.picture_files import BrokenFile
from ..formats.records import fetch_none, parse_picture
from ..sample import Pair
from .generic import Parquet

SCORES = ("compositeStructure", "objectConsistency", "imageQuality")


@dataclass(frozen=True)
class Subjects200k(Parquet):
    """Pairs, cut out of one picture each."""

    tile: int = 512
    padding: int = 8
    """Before each tile."""
    score: float = 5.0
    """Least of three scores up to 5; 0 takes those without scores, too (our choice: the paper names no filter)."""
    collection: str = ""
    """Reads only this one, as the set names it."""

    COLUMNS: ClassVar[Mapping[str, str]] = {"picture": "image"}
    EXTRA_COLUMNS: ClassVar[Sequence[str]] = ("collection", "quality_assessment", "description")
    LAYOUT: ClassVar[str] = "*.parquet with image, collection, quality_assessment, description"

    def accepts(self, record: Mapping[str, Any]) -> bool:
        words, scores = (as_table(record.get(name)) for name in ("description", "quality_assessment"))
        if self.collection not in ("", record.get("collection")) or words.get("description_valid") is False:
            return False
        return self.score <= 0 or all((scores.get(name) or 0) >= self.score for name in SCORES)

    def parse(self, id: str, record: Mapping[str, Any]) -> Pair:
        both = parse_picture(record.get("image"), "image", fetch_none)
        words = as_table(record.get("description"))
        first, second = (words.get(f"description_{i}") for i in (0, 1))
        if not (isinstance(first, str) and first and isinstance(second, str) and second):
            raise BrokenFile("it has no two descriptions")
        return Pair(id, self.cut(both, 0), self.cut(both, 1), first, second)

    def cut(self, both: np.ndarray, place: int) -> np.ndarray:
        """Cuts the left or the right tile: at 512 and 8 the columns 8 to 520 and 528 to 1040."""
        left, end = self.padding + place * (self.tile + self.padding), self.padding + self.tile
        if both.shape[0] < end or both.shape[1] < 2 * end:
            raise BrokenFile(
                f"it is {both.shape[1]} x {both.shape[0]}, too small for two tiles of {self.tile} and a padding of "
                f"{self.padding}"
            )
        return both[self.padding : end, left : left + self.tile]


def as_table(value: Any) -> Mapping[str, Any]:
    """Gives the value, if it is a table; else an empty one."""
    return value if isinstance(value, Mapping) else {}
