"""Tar files, plain or gzipped, read from end to end; nothing is unpacked onto the disk.

A member's name is a name and nothing else. A header may claim any size: what is larger than a picture can be ends
the file, before anything is read or unpacked for it.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ....prw.files.validate import shorten
from .json_lines import LONGEST
from .picture_files import MAX_BYTES, Broken
from .rows import Row


class Sparing:
    """A file that is never asked for more at once than a member may have."""

    def __init__(self, file: BinaryIO, name: str):
        self.file, self.name = file, name
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_BYTES:
            raise Broken(f"{self.name}: a header asks for {size} bytes, expected {MAX_BYTES} at most")
        return self.file.read(size)


def members_in(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the regular files in it."""
    try:
        with opener(path)(path, "rb") as file, tarfile.open(fileobj=Sparing(file, path.name), mode="r:") as tar:
            for member in tar:
                if not 0 <= member.size <= MAX_BYTES:
                    raise Broken(f"{path.name}: {shorten(member.name)} has {member.size} bytes")
                if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    data = tar.extractfile(member).read(member.size)
                    if len(data) < member.size:
                        raise Broken(f"{path.name} is cut off in {shorten(member.name)}")
                    yield member.name, data
                tar.members = []  # else it keeps every header
            refuse_rest(file, tar.offset, path)
    except Broken:
        raise
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise Broken(f"{path.name} is no whole tar file ({shorten(error)})") from None


def refuse_rest(file: BinaryIO, end: int, path: Path) -> None:
    """The library takes a damaged or cut header for the end."""
    file.seek(end)
    rest = file.read(tarfile.BLOCKSIZE)
    if rest and rest != bytes(tarfile.BLOCKSIZE):
        raise Broken(f"{path.name} is damaged or cut off at byte {end}")


def opener(path: Path):
    with path.open("rb") as file:
        return gzip.open if file.read(2) == b"\x1f\x8b" else open


def rows_in(path: Path) -> Iterator[Row]:
    """WebDataset's way: files next to each other with one name up to the first dot are a sample."""
    key, parts = "", {}
    for name, data in members_in(path):
        _, dot, part = PurePosixPath(name).name.partition(".")
        start = name.removesuffix(dot + part)
        if start != key and parts:
            yield sample_row(key, parts)
            parts = {}
        key = start
        parts[part.lower()] = data
        if sum(map(len, parts.values())) > MAX_BYTES:
            raise Broken(f"{path.name}: {shorten(key)} is larger than {MAX_BYTES} bytes")
    if parts:
        yield sample_row(key, parts)


def sample_row(key: str, parts: dict[str, bytes]) -> Row:
    if ".." in PurePosixPath(key).parts or key.startswith("/"):
        return {"id": shorten(key), "broken": "its name leads out of the archive"}
    return {"id": shorten(key.removeprefix("./")), "parts": parts}


def lines_in(path: Path) -> Iterator[bytes]:
    """The lines of the first regular file in a tar, or of a file that is none."""
    if path.name.endswith(".jsonl"):
        with path.open("rb") as file:
            yield from iter(lambda: file.readline(LONGEST), b"")
        return
    try:
        with opener(path)(path, "rb") as file, tarfile.open(fileobj=Sparing(file, path.name), mode="r:") as tar:
            member = next(member for member in tar if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE))
            lines = tar.extractfile(member)
            yield from iter(lambda: lines.readline(LONGEST), b"")
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, StopIteration) as error:
        raise ValueError(f"{path.name} is no whole tar file ({shorten(error)}): download it again.") from None
