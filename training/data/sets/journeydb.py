"""JourneyDB: pictures in gzipped tars, and one list of what they show.

    data/SPLIT/imgs/000.tgz                                 ./000/<uuid>.jpg
    data/train/train_anno_realease_repath.jsonl.tgz         img_path "./000/<uuid>.jpg", prompt, Task2 {"Caption"}
    data/valid/valid_anno_repath.jsonl.tgz

The list of the training split takes about 2 GB of memory; a picture that is not in it is passed over.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from ..formats.picture_files import decode_picture
from ..formats.rows import Row
from ..formats.tar_files import read_lines, read_members
from ..sample import Sample
from .listing import check_any
from .reader import Reader


@dataclass(frozen=True)
class JourneyDb(Reader):
    """Pictures with captions; its shards are tars."""

    split: str = "train"

    PATTERN: ClassVar[str] = "data/*/imgs/*.tgz"
    LAYOUT: ClassVar[str] = "data/SPLIT/imgs/000.tgz, data/SPLIT/SPLIT_anno_..._repath.jsonl.tgz"
    HAS_THINGS: ClassVar[bool] = False

    @property
    def folder(self) -> Path:
        return self.root / "data" / self.split

    @cached_property
    def captions(self) -> Mapping[str, str]:
        files = sorted([*self.folder.glob("*anno*repath*.jsonl.tgz"), *self.folder.glob("*anno*repath*.jsonl")])
        captions = {}
        for line in read_lines(check_any(files, "list *anno*repath*.jsonl.tgz", self.folder)[0]):
            entry = parse_line(line)
            if entry is not None:
                captions[str(PurePosixPath(entry.get("img_path") or ""))] = choose_caption(entry)
        return captions

    def shards(self) -> list:
        return [
            str(path)
            for path in check_any(sorted((self.folder / "imgs").glob("*.tgz")), "file imgs/*.tgz", self.folder)
        ]

    def rows(self, shard: Any) -> Iterator[Row]:
        for name, data in read_members(Path(shard)):
            name = str(PurePosixPath(name))
            if name in self.captions:
                yield {"id": name.removesuffix(".jpg"), "name": name, "data": data}

    def read(self, row: Row) -> Sample:
        return Sample(row["id"], decode_picture(row["data"], row["name"]), self.captions[row["name"]])


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Parses a line of the list; None, if it is damaged."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("img_path"), str) else None


def choose_caption(entry: Mapping[str, Any]) -> str:
    """Chooses what the picture shows; else the prompt that it was made from."""
    shown = entry.get("Task2")
    caption = shown.get("Caption") if isinstance(shown, Mapping) else None
    return str(caption or entry.get("prompt") or "").strip()
