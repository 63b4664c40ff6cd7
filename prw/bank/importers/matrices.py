"""What every importer asks of a file: matrices of numbers, and each of them once."""

from ...files.errors import FileError
from ...files.safe_file import FLOATS, SafeFile
from ...files.validate import shorten


def matrix(file: SafeFile, key: str) -> tuple[int, int]:
    """Its shape."""
    shape = file.shape(key)
    if len(shape) != 2 or 0 in shape or file.dtype(key) not in FLOATS:
        raise FileError(
            f"{file.name}: {shorten(key)} is {file.dtype(key)} of shape {shape}, expected a matrix of numbers: download or "
            f"save it again."
        )
    return shape


def put(found: dict, place, key: str, file: SafeFile) -> None:
    """Notes where a matrix lies: two spellings of one layer cannot both be meant."""
    if place in found:
        raise FileError(
            f"{file.name} holds {shorten(found[place])} and {shorten(key)}, expected one of them: both are the same matrix."
        )
    found[place] = key
