"""Readers for data of one's own: a folder of pictures, JSON lines, Parquet, WebDataset tars.
Other sets build on the last three."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ..formats import json_lines, parquet, tar_files
from ..formats.picture_files import join_below, read_bytes
from ..formats.records import FIELDS, join_parts, parse_record
from ..formats.rows import Row, name_row
from ..sample import AnySample
from .folder import Files, PictureFiles, list_files
from .listing import check_any
from .reader import ListedReader, Reader


@dataclass(frozen=True)
class OwnFolder(ListedReader):
    """A folder of pictures (folder.py), which become examples once the task is known."""

    PATTERN: ClassVar[str] = "*.txt"
    LAYOUT: ClassVar[str] = "NAME.png, NAME.txt; for tasks with a source NAME.source.png, for inpaint NAME.mask.png"

    def list_entries(self) -> Sequence[tuple[str, Files]]:
        return list(check_any(list_files(self.root), "picture with its prompt", self.root).items())

    def read_entry(self, id: str, entry: Files) -> PictureFiles:
        return PictureFiles(self.root, id, entry)


@dataclass(frozen=True)
class RecordReader(Reader):
    """Reads records, whose fields formats/records.py names."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Our fields -> what the set calls them."""

    def parse(self, id: str, record: Mapping[str, Any]) -> AnySample:
        return parse_record(id, record, self.columns)

    def read(self, row: Row) -> AnySample:
        return self.parse(row["id"], row["record"])


@dataclass(frozen=True)
class JsonLines(RecordReader):
    """`path` is a file or a folder of them; pictures are named from the folder on."""

    PATTERN: ClassVar[str] = "*.jsonl"
    LAYOUT: ClassVar[str] = "X.jsonl (or one file): an object a line, which names its pictures from that folder on"

    @classmethod
    def matches(cls, path: str) -> bool:
        return Path(path).is_file() or super().matches(path)

    @property
    def files(self) -> list[Path]:
        return [self.root] if self.root.is_file() else sorted(self.root.glob(self.PATTERN))

    @property
    def folder(self) -> Path:
        return self.root.parent if self.root.is_file() else self.root

    def shards(self) -> list:
        return json_lines.split_files(check_any(self.files, f"file {self.PATTERN}", self.root))

    def rows(self, shard: Any) -> Iterator[Row]:
        return json_lines.read_rows(tuple(shard))

    def parse(self, id: str, record: Mapping[str, Any]) -> AnySample:
        return parse_record(id, record, self.columns, lambda name: read_bytes(join_below(self.folder, name)))


@dataclass(frozen=True)
class Parquet(RecordReader):
    split: str = "train"
    download: bool = False
    """Allows `path` to be hf://datasets/OWNER/NAME, which is then read over the network."""

    PATTERN: ClassVar[str] = "**/*.parquet"
    LAYOUT: ClassVar[str] = "X.parquet at any depth, named by its split as on a hub; or hf://datasets/OWNER/NAME"
    COLUMNS: ClassVar[Mapping[str, str]] = {}
    """What a known data set calls our fields."""
    EXTRA_COLUMNS: ClassVar[Sequence[str]] = ("id",)
    """Columns beside those, that `parse` wants."""

    @classmethod
    def matches(cls, path: str) -> bool:
        return path.startswith(parquet.HUB) or super().matches(path)

    @cached_property
    def files(self) -> list[str]:
        return check_any(parquet.find_files(self.path, self.split, self.download), "Parquet file", self.path)

    @property
    def column_names(self) -> Mapping[str, str]:
        return {**self.COLUMNS, **self.columns}

    def shards(self) -> list:
        return self.files

    def rows(self, shard: Any) -> Iterator[Row]:
        wanted = {self.column_names.get(word, word) for word in FIELDS}
        for row in parquet.read_rows(shard, [*wanted, *self.EXTRA_COLUMNS]):
            try:
                if "broken" in row or self.accepts(row["record"]):
                    yield row
            except (TypeError, ValueError) as error:
                yield {"id": row["id"], "broken": f"a column of it is of another type ({error})"}

    def accepts(self, record: Mapping[str, Any]) -> bool:
        """Says whether a row is read: those that the set itself calls bad are passed over,
        for nothing is wrong with the file."""
        return True

    def parse(self, id: str, record: Mapping[str, Any]) -> AnySample:
        return parse_record(name_row(record.get("id"), id), record, self.column_names)

    def count_rows(self) -> int | None:
        return parquet.count_rows(self.files)


@dataclass(frozen=True)
class WebDataset(RecordReader):
    PATTERN: ClassVar[str] = "*.tar*"
    LAYOUT: ClassVar[str] = "X.tar (or .tar.gz): KEY.jpg, KEY.txt, KEY.json, KEY.before.jpg, ... beside each other"

    def shards(self) -> list:
        return [
            str(path) for path in check_any(sorted(self.root.glob(self.PATTERN)), f"file {self.PATTERN}", self.root)
        ]

    def rows(self, shard: Any) -> Iterator[Row]:
        return tar_files.read_rows(Path(shard))

    def read(self, row: Row) -> AnySample:
        return self.parse(row["id"], join_parts(row["parts"]))
