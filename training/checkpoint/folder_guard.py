"""Folders that record what their files depend on; a run with anything else is refused, not mixed in."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...prw.files.atomic_write import atomic_write
from ...prw.files.validate import shorten


def claim_folder(path: Path, about: Mapping[str, Any], holds: str, advice: str) -> None:
    """Checks the record at `path`, or writes it where there is none."""
    if path.exists():
        check_record(path, about, holds, advice)
        return
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(about, indent=1), encoding="utf-8")


def check_record(path: Path, about: Mapping[str, Any], holds: str, advice: str) -> dict[str, Any]:
    """Checks that the record agrees with `about`, which may be a part of it; returns all of it."""
    try:
        record = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"{path} cannot be read any more: {advice}.") from None
    for key, value in json.loads(json.dumps(about)).items():
        if (found := record.get(key)) != value:
            raise ValueError(
                f"{path.parent} holds {holds} ({key}: {shorten(found)} there, {shorten(value)} here): {advice}."
            )
    return record
