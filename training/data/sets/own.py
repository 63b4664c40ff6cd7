"""Data of one's own: a folder of pictures, JSON lines, Parquet, WebDataset tars. Other sets build on the last three."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ..formats import json_lines as lines
from ..formats import parquet
from ..formats import tar_files as tars
from ..formats.picture_files import join_below, read_bytes
from ..formats.records import FIELDS, join_parts, parse_record
from ..formats.rows import Row, name_row
from ..sample import AnySample
from .folder import Files, PictureFiles, list_files
from .listing import some
from .reader import Listed, Reader


@dataclass(frozen=True)
class OwnFolder(Listed):
    MARK: ClassVar[str] = "*.txt"
    LAYOUT: ClassVar[str] = "NAME.png, NAME.txt; for tasks with a source NAME.source.png, for inpaint NAME.mask.png"

    def listed(self) -> Sequence[tuple[str, Files]]:
        return list(some(list_files(self.root), "picture with its prompt", self.root).items())

    def sample(self, id: str, entry: Files) -> PictureFiles:
        return PictureFiles(self.root, id, entry)


@dataclass(frozen=True)
class Records(Reader):
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our words (records.py) -> what the set calls them."""

    def found(self, id: str, record: Mapping[str, Any]) -> AnySample:
        return parse_record(id, record, self.columns)

    def read(self, row: Row) -> AnySample:
        return self.found(row["id"], row["record"])


@dataclass(frozen=True)
class JsonLines(Records):
    """`path` is a file or a folder of them; pictures are named from the folder on."""

    MARK: ClassVar[str] = "*.jsonl"
    LAYOUT: ClassVar[str] = "X.jsonl (or one file): an object a line, which names its pictures from that folder on"

    @classmethod
    def fits(cls, path: str) -> bool:
        return Path(path).is_file() or super().fits(path)

    @property
    def files(self) -> list[Path]:
        return [self.root] if self.root.is_file() else sorted(self.root.glob(self.MARK))

    @property
    def folder(self) -> Path:
        return self.root.parent if self.root.is_file() else self.root

    def shards(self) -> list:
        return lines.split_files(some(self.files, f"file {self.MARK}", self.root))

    def rows(self, shard) -> Iterator[Row]:
        return lines.read_rows(tuple(shard))

    def found(self, id: str, record: Mapping[str, Any]) -> AnySample:
        return parse_record(id, record, self.columns, lambda name: read_bytes(join_below(self.folder, name)))


@dataclass(frozen=True)
class Parquet(Records):
    split: str = "train"
    download: bool = False
    """Allows `path` to be hf://datasets/OWNER/NAME, which is then read over the network."""

    MARK: ClassVar[str] = "**/*.parquet"
    LAYOUT: ClassVar[str] = "X.parquet at any depth, named by its split as on a hub; or hf://datasets/OWNER/NAME"
    COLUMNS: ClassVar[Mapping[str, str]] = {}
    """What a set that is known calls our words."""
    MORE: ClassVar[Sequence[str]] = ("id",)
    """Columns beside those, that `found` wants."""

    @classmethod
    def fits(cls, path: str) -> bool:
        return path.startswith(parquet.HUB) or super().fits(path)

    @cached_property
    def files(self) -> list[str]:
        return some(parquet.find_files(self.path, self.split, self.download), "Parquet file", self.path)

    @property
    def words(self) -> Mapping[str, str]:
        return {**self.COLUMNS, **self.columns}

    def shards(self) -> list:
        return self.files

    def rows(self, shard) -> Iterator[Row]:
        wanted = {self.words.get(word, word) for word in FIELDS}
        for row in parquet.read_rows(shard, [*wanted, *self.MORE]):
            if self.keeps(row["record"]):
                yield row

    def keeps(self, record: Mapping[str, Any]) -> bool:
        """Rows that the set itself calls bad are passed over: nothing is wrong with the file."""
        return True

    def found(self, id: str, record: Mapping[str, Any]) -> AnySample:
        return parse_record(name_row(record.get("id"), id), record, self.words)

    def count(self) -> int | None:
        return parquet.count_rows(self.files)


@dataclass(frozen=True)
class WebDataset(Records):
    MARK: ClassVar[str] = "*.tar*"
    LAYOUT: ClassVar[str] = "X.tar (or .tar.gz): KEY.jpg, KEY.txt, KEY.json, KEY.before.jpg, ... beside each other"

    def shards(self) -> list:
        return [str(path) for path in some(sorted(self.root.glob(self.MARK)), f"file {self.MARK}", self.root)]

    def rows(self, shard) -> Iterator[Row]:
        return tars.read_rows(Path(shard))

    def read(self, row: Row) -> AnySample:
        return self.found(row["id"], join_parts(row["parts"]))
