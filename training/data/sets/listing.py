"""Finds the files of a set."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from ..formats.picture_files import SUFFIXES

Found = TypeVar("Found")


def list_pictures(folder: Path) -> dict[str, Path]:
    """Lists name without suffix -> file, sorted, without hidden files."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {file.stem: file for file in files if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")}


def check_any(found: Found | None, what: str, root: Path | str) -> Found:
    """Returns what was found, if it is anything."""
    if not found:
        raise FileNotFoundError(f"There is no {what} in {root}: check the path and the split (docs/data.md).")
    return found


def find_first(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_file()), None)
