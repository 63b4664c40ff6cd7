"""Checks that all importers share: matrices of numbers, and each of them once."""

from typing import Any

from ...files.errors import FileError
from ...files.safe_file import FLOATS, SafeFile
from ...files.validate import shorten


def check_matrix(file: SafeFile, key: str) -> tuple[int, int]:
    """Gives the shape of a tensor that must be a matrix of numbers."""
    shape = file.shape(key)
    if len(shape) != 2 or 0 in shape or file.dtype(key) not in FLOATS:
        raise FileError(
            f"{file.name}: {shorten(key)} is {file.dtype(key)} of shape {shape}, expected a matrix of numbers: download or "
            f"save it again."
        )
    return shape


def add_once(keys: dict[Any, str], place: Any, key: str, file: SafeFile) -> None:
    """Adds the key of the matrix of a place; raises if the file has it under another spelling, too."""
    if place in keys:
        raise FileError(
            f"{file.name} holds {shorten(keys[place])} and {shorten(key)}, expected one of them: both are the same matrix."
        )
    keys[place] = key
