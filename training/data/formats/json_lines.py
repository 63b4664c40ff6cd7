"""Files of JSON lines, cut into shards by bytes: nothing is read twice, and no index is needed."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from ....prw.files.regular_file import open_regular
from ....prw.files.validate import shorten
from .picture_files import BrokenFile
from .rows import Row, name_row

PART_BYTES = 4 * 2**20
MAX_LINE = 2**20
Part = tuple[str, int, int]
"""A file, and the range of bytes in which its lines begin."""


def split_files(files: Sequence[Path], size: int = PART_BYTES) -> list[Part]:
    return [
        (str(path), start, min(start + size, end))
        for path in files
        for end in [path.stat().st_size]
        for start in range(0, end, size)
    ]


def read_rows(part: Part) -> Iterator[Row]:
    """Yields the objects of the lines that begin in this part; a line without one is a broken row."""
    path, start, end = Path(part[0]), part[1], part[2]
    try:
        with open_regular(path) as file:
            if start:  # a line that began before belongs to the part before
                file.seek(start - 1)
                skip_line(file)
            while (position := file.tell()) < end:
                line = file.readline(MAX_LINE + 1)
                if len(line) > MAX_LINE and not line.endswith(b"\n"):
                    skip_line(file)
                if line.strip():
                    yield parse_row(f"{path.stem}-{position}", line)
    except OSError as error:
        raise BrokenFile(f"{path.name} cannot be read ({error.strerror or shorten(error)})") from None


def skip_line(file: BinaryIO) -> None:
    while (line := file.readline(MAX_LINE)) and not line.endswith(b"\n"):
        pass


def parse_row(id: str, line: bytes) -> Row:
    if len(line.rstrip(b"\r\n")) > MAX_LINE:
        return {"id": id, "broken": f"its line is longer than {MAX_LINE} bytes"}
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {"id": id, "broken": f"its line is no JSON ({shorten(error)})"}
    if not isinstance(record, dict):
        return {"id": id, "broken": "its line is no JSON object"}
    return {"id": name_row(record.get("id"), id), "record": record}
