"""MultiGen-20M, in the layout of its authors and as Parquet on a hub, with or without depth maps.

json_files/aesthetics_plus_all_group_KIND_all.json    lines {"source", "prompt", "control_KIND"}
images/..., conditions/...                            what source and control_KIND name
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..formats.picture_files import join_below, read_bytes
from ..formats.records import parse_record
from ..formats.rows import name_row
from ..sample import AnySample
from .generic import JsonLines, Parquet


@dataclass(frozen=True)
class MultiGen(JsonLines):
    """Pictures and captions, in the authors' layout."""

    kind: str = "canny"
    """The kind of map whose file is read. Its pictures serve all maps that are drawn from a picture."""

    BRINGS: ClassVar[tuple[str, ...]] = ()
    """Maps that are taken from the set."""
    PATTERN: ClassVar[str] = "json_files/*.json"
    LAYOUT: ClassVar[str] = "json_files/aesthetics_plus_all_group_KIND_all.json, images/..., conditions/..."

    @property
    def files(self) -> list[Path]:
        return sorted((self.root / "json_files").glob(f"aesthetics_plus_all_group_{self.kind}_all.json"))

    def parse(self, id: str, record: Mapping[str, Any]) -> AnySample:
        fields = {"caption": record.get("prompt"), "picture": self.read_file("images", record.get("source"))}
        fields |= {kind: self.read_file("conditions", record.get(f"control_{kind}")) for kind in self.BRINGS}
        return parse_record(name_row(record.get("source"), id).removeprefix("./"), fields)

    def read_file(self, folder: str, name: Any) -> bytes | None:
        return read_bytes(join_below(self.root / folder, name)) if isinstance(name, str) else None


@dataclass(frozen=True)
class MultiGenDepth(MultiGen):
    kind: str = "depth"
    BRINGS: ClassVar[tuple[str, ...]] = ("depth",)


@dataclass(frozen=True)
class MultiGenParquet(Parquet):
    COLUMNS: ClassVar[Mapping[str, str]] = {"picture": "image", "caption": "text"}
    LAYOUT: ClassVar[str] = "*.parquet with image, text"


@dataclass(frozen=True)
class MultiGenDepthParquet(Parquet):
    COLUMNS: ClassVar[Mapping[str, str]] = {"picture": "image", "caption": "text", "depth": "control_depth"}
    LAYOUT: ClassVar[str] = "*.parquet with image, text, control_depth"
