"""Folders that say what their files depend on: who comes with something else is refused, not mixed in."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...prw.files.atomic_write import atomic_write
from ...prw.files.validate import shorten


def claim(path: Path, about: Mapping[str, Any], holds: str, advice: str) -> None:
    """`path` is the file that says it; the first to come writes it."""
    if path.exists():
        refuse_other(path, about, holds, advice)
        return
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(about, indent=1), encoding="utf-8")


def refuse_other(path: Path, about: Mapping[str, Any], holds: str, advice: str) -> dict[str, Any]:
    """All that the file says, of which `about` may be a part."""
    try:
        theirs = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise ValueError(f"{path} cannot be read any more: {advice}.") from None
    for key, mine in json.loads(json.dumps(about)).items():
        if (found := theirs.get(key)) != mine:
            raise ValueError(
                f"{path.parent} holds {holds} ({key}: {shorten(found)} there, {shorten(mine)} here): {advice}."
            )
    return theirs
