"""What a data set's reader is: its settings, and three methods.

`shards` lists the shards, `rows` yields the rows of one, `read` makes a sample of a row. Rows are cheap (nothing is
decoded), so that a position in the middle is found again by passing over them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ..formats.rows import Row
from ..sample import AnySample
from .folder import PictureFiles

SHARD_ENTRIES = 64
"""Entries of a list that make a shard."""


@dataclass(frozen=True)
class Reader(ABC):
    """Reads one layout of a data set. Its fields are the recipe's settings; its repr is part of what encoded samples are of:
    class and fields keep their names."""

    path: str = ""
    """The folder that the set lies in."""

    PATTERN: ClassVar[str] = ""
    """Matches a file that is there in this layout."""
    LAYOUT: ClassVar[str] = ""
    """The layout in words."""
    HAS_THINGS: ClassVar[bool] = True
    """Whether its samples may bring things; those of others need labels for tasks that are about things."""

    @classmethod
    def matches(cls, path: str) -> bool:
        """Says whether the folder has this layout."""
        return any(Path(path).glob(cls.PATTERN))

    @property
    def root(self) -> Path:
        return Path(self.path)

    @abstractmethod
    def shards(self) -> list:
        """Lists plain values, always in the same order."""

    @abstractmethod
    def rows(self, shard: Any) -> Iterator[Row]:
        """Yields always the same rows in the same order; raises `BrokenFile` where a shard breaks off."""

    @abstractmethod
    def read(self, row: Row) -> AnySample | PictureFiles:
        """Makes a sample of a row; raises `BrokenFile`."""

    def count_rows(self) -> int | None:
        """Counts the rows, if that is possible without reading them."""
        return None

    def __getstate__(self) -> dict:
        """Pickles the settings alone: another process reads the lists itself."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}


@dataclass(frozen=True)
class ListedReader(Reader):
    """A data set whose rows are known from a list."""

    @cached_property
    def entries(self) -> Sequence[tuple[str, Any]]:
        return self.list_entries()

    @abstractmethod
    def list_entries(self) -> Sequence[tuple[str, Any]]:
        """Lists ids, and what it takes to read each."""

    @abstractmethod
    def read_entry(self, id: str, entry: Any) -> AnySample | PictureFiles:
        """Makes a sample of an entry; raises `BrokenFile`."""

    def shards(self) -> list:
        count = self.count_rows()
        return [(start, min(start + SHARD_ENTRIES, count)) for start in range(0, count, SHARD_ENTRIES)]

    def rows(self, shard: Any) -> Iterator[Row]:
        for number in range(*shard):
            yield {"id": self.entries[number][0], "number": number}

    def read(self, row: Row) -> AnySample | PictureFiles:
        return self.read_entry(*self.entries[row["number"]])

    def count_rows(self) -> int:
        return len(self.entries)
