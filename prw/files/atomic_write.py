"""Files that are there whole or not at all: written under a temporary name, forced to the disk, then renamed."""

import os
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".part"
"""What the names of unfinished files end with."""


@contextmanager
def atomic_write(path: Path) -> Generator[Path]:
    """Yields a temporary path to write to, which is renamed to `path` in the end; an error on the way leaves nothing."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with suppress(OSError):  # renamed, or never begun
            partial.unlink()
