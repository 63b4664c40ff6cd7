"""What a file's reader yields: rows, of which nothing is decoded yet."""

from typing import Any

from ....prw.files.validate import shorten

Row = dict[str, Any]
"""At least an "id"; "broken" says why there is no more."""


def name_row(value: Any, place: str) -> str:
    """Names the id: what a record calls itself, which may be 0; else where it lies."""
    return place if value is None or value == "" else shorten(value)
