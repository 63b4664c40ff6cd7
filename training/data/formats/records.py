"""Records of JSON lines, Parquet or tars as samples.

    picture, caption, things, depth, seg, canny, lineart, hed     a Sample
    first, second, first_caption, second_caption                  a Pair
    before, after, instruction                                    a Triple

A picture is bytes, a file's name, or an object with bytes, as data sets on a hub have it. Things are objects with a
name, a kind and a mask in one of COCO's forms. `columns` says what a set calls these fields: ours -> theirs.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..geometry import whole_crop
from ..sample import MAP_KINDS, AnySample, Pair, Sample, Thing, Triple
from .picture_files import SUFFIXES, BrokenFile, decode_picture
from .run_length_masks import decode_mask

FIELDS = ("picture", "caption", "things", "first", "second", "first_caption", "second_caption", "before", "after")
FIELDS += ("instruction", *MAP_KINDS)
Fetch = Callable[[str], bytes]
"""Reads the file of this name."""


def fetch_none(name: str) -> bytes:
    raise BrokenFile(f"it names the file {name!r}, where pictures are expected within")


def parse_record(
    id: str, record: Mapping[str, Any], columns: Mapping[str, str] | None = None, fetch: Fetch = fetch_none
) -> AnySample:
    """Turns a record into a sample, a pair or a triple, by which of the fields it has."""
    columns = columns or {}
    fields = {field: record.get(columns.get(field, field)) for field in FIELDS}
    fields = {field: value for field, value in fields.items() if value is not None}

    def picture(field: str) -> np.ndarray:
        return parse_picture(fields[field], columns.get(field, field), fetch)

    def text(field: str) -> str:
        return parse_text(fields.get(field, ""), columns.get(field, field))

    if "before" in fields and "after" in fields:
        return Triple(id, picture("before"), picture("after"), text("instruction"))
    if "first" in fields and "second" in fields:
        return Pair(id, picture("first"), picture("second"), text("first_caption"), text("second_caption"))
    if "picture" not in fields:
        raise BrokenFile(
            f"it has {', '.join(map(str, record)) or 'nothing'}, expected picture, before and after, or first "
            f"and second: name its columns"
        )
    pixels = picture("picture")
    maps = {kind: fit_map(kind, picture(kind), pixels.shape[:2]) for kind in MAP_KINDS if kind in fields}
    return Sample(id, pixels, text("caption"), parse_things(fields.get("things", []), pixels.shape[:2]), maps)


def parse_picture(value: Any, name: str, fetch: Fetch) -> np.ndarray:
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if isinstance(value, str):
        value, name = fetch(value), value
    if not isinstance(value, (bytes, bytearray)):
        raise BrokenFile(f"its {name} is no picture")
    return decode_picture(bytes(value), name)


def parse_text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BrokenFile(f"its {name} is no text")
    return value.strip()


def fit_map(kind: str, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a map that is smaller than its picture."""
    return pixels if pixels.shape[:2] == size else whole_crop(pixels.shape[:2], size).map(kind, pixels)


def parse_things(value: Any, size: tuple[int, int]) -> tuple[Thing, ...]:
    try:
        rows = [(str(row.get("name", "")), str(row.get("kind", "")), row["mask"]) for row in value]
    except (TypeError, KeyError, AttributeError):
        raise BrokenFile("its things are no list of objects with name, kind and mask") from None
    things = [Thing(name, kind, decode_mask(mask, size)) for name, kind, mask in rows]
    return tuple(thing for thing in things if thing.mask.any())


def join_parts(parts: Mapping[str, bytes]) -> dict[str, Any]:
    """Makes a record of a WebDataset sample's parts: jpg is the picture, before.jpg the one before, txt the caption, json the rest."""
    record: dict[str, Any] = {}
    for part, data in parts.items():
        field, _, suffix = part.rpartition(".")
        if f".{suffix}" in SUFFIXES:
            record[field or "picture"] = data
        elif suffix == "txt":
            record[field or "caption"] = decode_text(data, part)
        elif part == "json":
            record |= parse_fields(data)
    return record


def decode_text(data: bytes, part: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeError:
        raise BrokenFile(f"its {part} is no text in UTF-8") from None


def parse_fields(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise BrokenFile("its json is damaged") from None
    if not isinstance(fields, dict):
        raise BrokenFile("its json is no object")
    return fields
