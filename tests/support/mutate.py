"""Damage of every kind, for files and for what is in them; a generator decides which."""

import copy
import json
import struct
from typing import Any

import numpy as np

WORDS = (
    "", " ", "\0", "..", "../../etc/passwd", "/etc/passwd", "C:\\x", "a/b", "\x1b[31mred", "\u202egnp", "\ud800", "a" * 5000,
    "NaN", "true", "null", "-1", "\n", "😀" * 70, "ſ", "٣", "{}", "[]", "__class__", "%s%n", "$(id)", "con", "final",
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2, 3, 255, 2**31 - 1, 2**31, 2**53, 2**62, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.0, 1e308, 1e-308,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
DTYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "I64",
    "I8",
    "U8",
    "BOOL",
    "F8_E4M3",
    "F8_E5M2",
    "F8_E8M0",
    "C64",
    "f32",
    "F4",
    "",
)


def pick(rng: np.random.Generator, options) -> Any:
    return options[int(rng.integers(len(options)))]


def make_value(rng: np.random.Generator, depth: int = 0) -> Any:
    """Any JSON value."""
    kind = rng.integers(7 if depth < 2 else 4)
    if kind == 0:
        return pick(rng, (None, True, False))
    if kind == 1:
        return pick(rng, WORDS)
    if kind in (2, 3):
        return pick(rng, NUMBERS)
    if kind == 4:
        return [make_value(rng, depth + 1) for _ in range(rng.integers(4))]
    if kind == 5:
        return {str(pick(rng, WORDS)): make_value(rng, depth + 1) for _ in range(rng.integers(4))}
    nested: Any = []
    for _ in range(int(rng.integers(50, 3000))):
        nested = [nested]
    return nested


def list_places(data: Any, path: tuple = ()) -> list[tuple]:
    """Where the values of JSON data are."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    places = []
    for key, value in items:
        places += [(*path, key), *list_places(value, (*path, key))]
    return places


def mutate_json(rng: np.random.Generator, data: Any) -> Any:
    """A copy with one value changed, lost, doubled or renamed."""
    data = copy.deepcopy(data)
    places = list_places(data)
    if not places or rng.random() < 0.02:
        return make_value(rng)
    *path, key = pick(rng, places)
    around = data
    for step in path:
        around = around[step]
    old, way = around[key], rng.integers(6)
    if way == 0:
        del around[key]
    elif way == 1 and isinstance(around, dict):
        around[str(pick(rng, WORDS))] = around.pop(key)
    elif way == 2 and isinstance(around, dict):
        around[str(pick(rng, WORDS))] = make_value(rng)
    elif way == 3 and isinstance(old, (int, float)) and not isinstance(old, bool):
        around[key] = pick(rng, (old + 1, old - 1, -old, old * 2, old * 1000, float(old), str(old)))
    elif way == 4 and isinstance(around, list):
        around.insert(0, copy.deepcopy(old))
    else:
        around[key] = make_value(rng)
    return data


def dump(data: Any) -> bytes:
    """JSON, with what JSON forbids and readers meet: NaN, half characters, lists in lists."""
    try:
        return json.dumps(data).encode("utf-8", "surrogatepass")
    except RecursionError:
        return b"[" * 3000


def mutate_bytes(rng: np.random.Generator, data: bytes) -> bytes:
    """Bits turned, pieces cut, doubled, zeroed or put in."""
    if not data:
        return b"\0"
    way, at = rng.integers(6), int(rng.integers(len(data)))
    length = int(min(len(data) - at, 2 ** rng.integers(12)))
    if way == 0:
        return data[:at]
    if way == 1:
        return data[:at] + data[at + length :]
    if way == 2:
        return data[: at + length] + data[at:]
    if way == 3:
        return data[:at] + bytes(length) + data[at + length :]
    if way == 4:
        return data[:at] + rng.bytes(int(rng.integers(1, 64))) + data[at:]
    changed = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def split_file(data: bytes) -> tuple[dict, bytes]:
    """A safetensors file's header and numbers."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_file(header: Any, numbers: bytes) -> bytes:
    text = dump(header)
    return struct.pack("<Q", len(text)) + text + numbers


def mutate_file(rng: np.random.Generator, data: bytes) -> bytes:
    """A damaged safetensors file: its bytes, its header's, its header's values, its metadata's, its tensors."""
    way = rng.integers(8)
    header, numbers = split_file(data)
    start = len(data) - len(numbers)
    if way == 0:
        return mutate_bytes(rng, data)
    if way == 1:
        return data[:8] + mutate_bytes(rng, data[8:start]) + numbers
    if way == 2:
        length = int(pick(rng, (0, 1, 7, start, start - 9, start + 1, len(data), 2**31, 2**40, 2**63, 2**64 - 1)))
        return struct.pack("<Q", length) + data[8:]
    if way == 3:
        return join_file(mutate_json(rng, header), numbers)
    if way == 4:
        return join_file(mutate_metadata(rng, header), numbers)
    if way == 5:
        return double_key(rng, data, header, numbers)
    return join_file(*mutate_tensor(rng, header, numbers))


def mutate_metadata(rng: np.random.Generator, header: dict) -> dict:
    """One entry's JSON has another value; a text that is none becomes another."""
    metadata = dict(header.get("__metadata__", {}))
    if not metadata:
        return {**header, "__metadata__": {str(pick(rng, WORDS)): str(pick(rng, WORDS))}}
    key = pick(rng, sorted(metadata))
    try:
        metadata[key] = dump(mutate_json(rng, json.loads(metadata[key]))).decode("utf-8", "replace")
    except ValueError:
        metadata[key] = str(pick(rng, WORDS))
    if rng.random() < 0.1:
        metadata[key] = mutate_bytes(rng, metadata[key].encode("utf-8", "replace")).decode("utf-8", "replace")
    return {**header, "__metadata__": metadata}


def double_key(rng: np.random.Generator, data: bytes, header: dict, numbers: bytes) -> bytes:
    """A name that stands there twice."""
    key = pick(rng, sorted(header))
    text = dump(header)
    text = text[:-1] + b", " + dump({key: header[pick(rng, sorted(header))]})[1:-1] + b"}"
    return struct.pack("<Q", len(text)) + text + numbers


def mutate_tensor(rng: np.random.Generator, header: dict, numbers: bytes) -> tuple[dict, bytes]:
    """A header that fits its numbers, and says something else than it did."""
    header = copy.deepcopy(header)
    names = [name for name in header if name != "__metadata__"]
    name, way = pick(rng, names), rng.integers(6)
    entry = header[name]
    begin, end = entry["data_offsets"]
    if way == 0:
        entry["shape"] = pick(rng, (entry["shape"][::-1], [end - begin], [1, *entry["shape"]], [0, 2**40], [-1, 4], []))
    elif way == 1:
        entry["dtype"] = pick(rng, DTYPES)
    elif way == 2:
        header[str(pick(rng, WORDS))] = header.pop(name)
    elif way == 3:
        other = header[pick(rng, names)]
        entry["data_offsets"], other["data_offsets"] = other["data_offsets"], entry["data_offsets"]
    elif way == 4:
        fill = pick(rng, (b"\0", b"\xff", b"\x7f", b"\x80"))
        numbers = numbers[:begin] + fill * (end - begin) + numbers[end:]
    else:
        numbers = numbers[:begin] + rng.bytes(end - begin) + numbers[end:]
    return header, numbers
