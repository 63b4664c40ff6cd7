"""What a data set's reader is: its settings, and three questions that it answers.

Which shards has it, which rows are in a shard, and what does a row show? Rows are cheap (nothing is decoded), so that
a place in the middle is found again by passing over them.
"""

from abc import abstractmethod
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
class Reader:
    path: str = ""
    """The folder that the set lies in."""

    PATTERN: ClassVar[str] = ""
    """Something that is there in this layout."""
    LAYOUT: ClassVar[str] = ""
    """In words."""

    @classmethod
    def matches(cls, path: str) -> bool:
        return any(Path(path).glob(cls.PATTERN))

    @property
    def root(self) -> Path:
        return Path(self.path)

    @abstractmethod
    def shards(self) -> list:
        """Plain values, always in the same order."""

    @abstractmethod
    def rows(self, shard) -> Iterator[Row]:
        """Always the same rows in the same order; a shard that breaks off raises `Broken`."""

    @abstractmethod
    def read(self, row: Row) -> AnySample | PictureFiles:
        """Raises `Broken`."""

    def count_rows(self) -> int | None:
        """How many rows there are, if that can be told without reading them."""
        return None

    def __getstate__(self) -> dict:
        """Settings alone: another process reads the lists itself."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}


@dataclass(frozen=True)
class ListedReader(Reader):
    """A set whose rows are known from a list."""

    @cached_property
    def entries(self) -> Sequence[tuple[str, Any]]:
        """Ids, and what it takes to read each."""
        return self.list_entries()

    @abstractmethod
    def list_entries(self) -> Sequence[tuple[str, Any]]: ...

    @abstractmethod
    def read_entry(self, id: str, entry: Any) -> AnySample | PictureFiles: ...

    def shards(self) -> list:
        return [
            (start, min(start + SHARD_ENTRIES, self.count_rows()))
            for start in range(0, self.count_rows(), SHARD_ENTRIES)
        ]

    def rows(self, shard) -> Iterator[Row]:
        for place in range(*shard):
            yield {"id": self.entries[place][0], "place": place}

    def read(self, row: Row) -> AnySample | PictureFiles:
        return self.read_entry(*self.entries[row["place"]])

    def count_rows(self) -> int:
        return len(self.entries)
