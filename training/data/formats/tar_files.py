"""Reads tar files, plain or gzipped, from end to end; nothing is unpacked onto the disk.

A member's name is a name and nothing else. A header may claim any size: what is larger than a picture can be ends
the file, before anything is read or unpacked for it.
"""

import gzip
import tarfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from ....prw.files.regular_file import open_regular
from ....prw.files.validate import shorten
from .json_lines import MAX_LINE
from .picture_files import MAX_BYTES, BrokenFile
from .rows import Row


class BoundedFile:
    """A file that may not be asked for more at once than a member may have."""

    def __init__(self, file: BinaryIO, name: str):
        self.file, self.name = file, name
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_BYTES:
            raise BrokenFile(f"{self.name}: a header asks for {size} bytes, expected {MAX_BYTES} at most")
        return self.file.read(size)


DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, RecursionError)
"""What reading a damaged tar raises; the last by long chains of headers."""
FILE_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE)


@contextmanager
def open_tar(path: Path) -> Generator[tuple[BinaryIO, tarfile.TarFile], None, None]:
    """Opens the tar, and what its bytes come from."""
    with open_regular(path) as packed:
        is_packed = packed.read(2) == b"\x1f\x8b"
        packed.seek(0)
        file: Any = gzip.GzipFile(fileobj=packed, mode="rb") if is_packed else packed
        bounded: Any = BoundedFile(file, path.name)
        with tarfile.open(fileobj=bounded, mode="r:") as tar:
            yield file, tar


def read_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yields names and contents of the regular files in it."""
    try:
        with open_tar(path) as (file, tar):
            for member in tar:
                if not 0 <= member.size <= MAX_BYTES:
                    raise BrokenFile(f"{path.name}: {shorten(member.name)} has {member.size} bytes")
                if member.type in FILE_TYPES and (content := tar.extractfile(member)):
                    data = content.read(member.size)
                    if len(data) < member.size:
                        raise BrokenFile(f"{path.name} is cut off in {shorten(member.name)}")
                    yield member.name, data
                tar.members = []  # pyrefly: ignore[missing-attribute] - else it keeps every header
            check_rest(file, tar.offset, path)
    except BrokenFile:
        raise
    except DAMAGE as error:
        raise BrokenFile(f"{path.name} is no whole tar file ({shorten(error)})") from None


def check_rest(file: BinaryIO, end: int, path: Path) -> None:
    """Raises if more follows: the library takes a damaged or cut header for the end."""
    file.seek(end)
    rest = file.read(tarfile.BLOCKSIZE)
    if rest and rest != bytes(tarfile.BLOCKSIZE):
        raise BrokenFile(f"{path.name} is damaged or cut off at byte {end}")


def read_rows(path: Path) -> Iterator[Row]:
    """Yields samples as WebDataset packs them: files next to each other with one name up to the first dot."""
    key, parts = "", dict[str, bytes]()
    for name, data in read_members(path):
        _, dot, part = PurePosixPath(name).name.partition(".")
        start = name.removesuffix(dot + part)
        if start != key and parts:
            yield make_row(key, parts)
            parts = {}
        key = start
        parts[part.lower()] = data
        if sum(map(len, parts.values())) > MAX_BYTES:
            raise BrokenFile(f"{path.name}: {shorten(key)} is larger than {MAX_BYTES} bytes")
    if parts:
        yield make_row(key, parts)


def make_row(key: str, parts: dict[str, bytes]) -> Row:
    if ".." in PurePosixPath(key).parts or key.startswith("/"):
        return {"id": shorten(key), "broken": "its name leads out of the archive"}
    return {"id": shorten(key.removeprefix("./")), "parts": parts}


def read_lines(path: Path) -> Iterator[bytes]:
    """Yields the lines of the first regular file in a tar, or of a file that is none."""
    if path.name.endswith(".jsonl"):
        with open_regular(path) as file:
            yield from iter(lambda: file.readline(MAX_LINE), b"")
        return
    try:
        with open_tar(path) as (_, tar):
            lines = next(tar.extractfile(member) for member in tar if member.type in FILE_TYPES)
            yield from iter(lambda: lines.readline(MAX_LINE) if lines else b"", b"")
    except (*DAMAGE, StopIteration) as error:
        raise ValueError(f"{path.name} is no whole tar file ({shorten(error)}): download it again.") from None
