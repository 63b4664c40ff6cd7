"""Opens what others may have put into a folder: a pipe would let us wait for ever, a device never ends."""

import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
"""Pipes are opened without waiting for their other end."""


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Opens a file to read its bytes; raises OSError for what is no regular file."""
    descriptor = os.open(path, FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is no regular file")
    return os.fdopen(descriptor, "rb")


def read_regular(path: str | os.PathLike, max_bytes: int) -> bytes:
    """Reads a whole file of at most so many bytes, whatever size it claims; raises OSError for a longer one."""
    with open_regular(path) as file:
        is_larger = os.fstat(file.fileno()).st_size > max_bytes
        data = b"" if is_larger else file.read(max_bytes + 1)
    if is_larger or len(data) > max_bytes:
        raise OSError(f"it is larger than {max_bytes} bytes")
    return data


def read_regular_text(path: Path, max_bytes: int) -> str:
    """Reads a whole text in UTF-8; raises OSError or UnicodeError."""
    return read_regular(path, max_bytes).decode("utf-8")


def hash_file(path: Path) -> str:
    """Gives the SHA-256 of a whole file, however large."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while part := file.read(2**24):
            digest.update(part)
    return digest.hexdigest()
