"""Reads Parquet files of a folder or, where the user asks for it, of a Hugging Face hub; a file is a shard.

Rows are read a few at a time, and only the columns that are wanted.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ....prw.files.validate import shorten
from .picture_files import BrokenFile
from .rows import Row

HUB = "hf://datasets/"
BATCH_ROWS = 8
"""Rows in memory at once."""


def find_files(path: str, split: str, download: bool = False) -> list[str]:
    """Lists the files of a split: those that begin with its name, or lie in a folder of its name; all, if none do."""
    if path.startswith(HUB):
        files = list_hub_files(path, download)
    else:
        files = [str(file) for file in sorted(Path(path).rglob("*.parquet"))]
    return [file for file in files if is_in_split(file.removeprefix(path), split)] or files


def is_in_split(file: str, split: str) -> bool:
    *folders, name = file.strip("/").split("/")
    return split in folders or name.split("-")[0].removesuffix(".parquet") == split


def list_hub_files(path: str, download: bool) -> list[str]:
    """Asks the hub, if the user allowed it."""
    if not download:
        raise ValueError(
            f"{path} is on a hub, and nothing is downloaded unless you ask for it: set download = true, or download it "
            f"yourself and give the folder."
        )
    from huggingface_hub import HfFileSystem

    root = path.removeprefix("hf://")
    return [f"hf://{file}" for file in sorted(HfFileSystem().glob(f"{root}/**/*.parquet"))]


def read_rows(file: str, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow

    try:
        with open_table(file) as table:
            present = [name for name in table.schema_arrow.names if name in columns]
            number = 0
            for batch in table.iter_batches(BATCH_ROWS, columns=present):
                for record in batch.to_pylist():
                    yield {"id": f"{Path(file).stem}-{number}", "record": record}
                    number += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise BrokenFile(f"{Path(file).name} is no whole Parquet file ({shorten(error)})") from None


@contextmanager
def open_table(file: str) -> Generator[Any, None, None]:
    from pyarrow.parquet import ParquetFile

    if not file.startswith(HUB):
        with ParquetFile(file, memory_map=True) as table:
            yield table
        return
    from huggingface_hub import HfFileSystem

    with HfFileSystem().open(file.removeprefix("hf://")) as remote, ParquetFile(remote) as table:
        yield table


def count_rows(files: Sequence[str]) -> int | None:
    """Adds up what the files say of themselves; None, if one is broken or remote."""
    import pyarrow
    from pyarrow.parquet import read_metadata

    if any(file.startswith(HUB) for file in files):
        return None
    try:
        return sum(read_metadata(file).num_rows for file in files)
    except (pyarrow.ArrowException, OSError):
        return None
