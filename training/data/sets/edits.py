"""Edited pictures: OmniEdit and MagicBrush, both Parquet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from zlib import crc32

from ..formats.picture_files import BrokenFile
from ..formats.records import parse_record
from ..formats.rows import name_row
from ..sample import AnySample
from .generic import Parquet


@dataclass(frozen=True)
class OmniEdit(Parquet):
    """Edits with several wordings."""

    task: str = ""
    """Reads only edits of this kind, as the set names it: "removal", "style", ..."""

    COLUMNS: ClassVar[Mapping[str, str]] = {"before": "src_img", "after": "edited_img"}
    EXTRA_COLUMNS: ClassVar[Sequence[str]] = ("omni_edit_id", "task", "edited_prompt_list")
    LAYOUT: ClassVar[str] = "*.parquet with src_img, edited_img, edited_prompt_list, task"

    def accepts(self, record: Mapping[str, Any]) -> bool:
        return self.task in ("", record.get("task"))

    def parse(self, id: str, record: Mapping[str, Any]) -> AnySample:
        """Takes one of several wordings, short and long, by the id, so that all are seen."""
        id, wordings = name_row(record.get("omni_edit_id"), id), record.get("edited_prompt_list")
        if not isinstance(wordings, list) or not wordings:
            raise BrokenFile("it has no instruction")
        fields = {**record, "instruction": wordings[crc32(id.encode()) % len(wordings)]}
        return parse_record(id, fields, self.column_names)


@dataclass(frozen=True)
class MagicBrush(Parquet):
    COLUMNS: ClassVar[Mapping[str, str]] = {"before": "source_img", "after": "target_img"}
    EXTRA_COLUMNS: ClassVar[Sequence[str]] = ("img_id", "turn_index")
    LAYOUT: ClassVar[str] = "*.parquet with img_id, turn_index, source_img, target_img, instruction"

    def parse(self, id: str, record: Mapping[str, Any]) -> AnySample:
        picture = name_row(record.get("img_id"), id)
        return parse_record(f"{picture}-{record.get('turn_index')}", record, self.column_names)
