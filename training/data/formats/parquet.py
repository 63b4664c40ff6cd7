"""Reads Parquet files of a folder or, where the user asks for it, of a Hugging Face hub; a file is a shard.

Rows are read one at a time, since a value may stand once and count for many, and only the columns that are wanted.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ....prw.files.regular_file import open_regular
from ....prw.files.validate import shorten
from .picture_files import MAX_BYTES, BrokenFile
from .rows import Row

HUB = "hf://datasets/"
MAX_PACKING = 16
"""Bytes that one byte of the columns may unpack to, where they are many."""


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
            present, number = [name for name in table.schema_arrow.names if name in columns], 0
            for group in range(table.num_row_groups):
                for row in read_group(table, group, present):
                    yield {"id": f"{Path(file).stem}-{number}", **row}
                    number += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise BrokenFile(f"{Path(file).name} is no whole Parquet file ({shorten(error)})") from None


def read_group(table: Any, group: int, columns: Sequence[str]) -> Iterator[Row]:
    """Yields the rows of a row group as they are read, a damaged one with what is wrong; a damaged group is one row."""
    import pyarrow

    try:
        check_packing(table.metadata.row_group(group), columns)
        for row in table.iter_batches(1, row_groups=[group], columns=columns):
            yield read_record(row)
    except (pyarrow.ArrowException, BrokenFile) as error:
        yield {"broken": f"its row group {group} cannot be read ({shorten(error)})"}


def check_packing(group: Any, columns: Sequence[str]) -> None:
    """Raises where columns unpack to far more than they take: pictures hardly do, bombs do."""
    wanted = [
        each for each in map(group.column, range(group.num_columns)) if each.path_in_schema.split(".")[0] in columns
    ]
    packed = sum(each.total_compressed_size for each in wanted)
    size = sum(each.total_uncompressed_size for each in wanted)
    if size > MAX_BYTES + MAX_PACKING * packed:
        raise BrokenFile(f"{packed} bytes of {shorten(', '.join(columns))} unpack to {size}")


def read_record(row: Any) -> Row:
    """Turns a batch of one row into its record; what has no value in Python, or is larger than a picture may be,
    is broken."""
    if row.nbytes > MAX_BYTES:
        return {"broken": f"it holds {row.nbytes} bytes, expected {MAX_BYTES} at most"}
    try:
        return {"record": row.to_pylist()[0]}
    except Exception as error:  # times out of range, text that is none
        return {"broken": f"a value cannot be read ({type(error).__name__}: {shorten(error)})"}


@contextmanager
def open_table(file: str) -> Generator[Any, None, None]:
    from pyarrow.parquet import ParquetFile

    if not file.startswith(HUB):
        open_regular(file).close()
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
