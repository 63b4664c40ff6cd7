"""What a folder of cached samples holds: models and settings in cache.json, and a list of shards for each process.

A process alone writes its list, and only once a shard is whole: so a folder can be read while it grows, and a
process that was killed goes on behind its last shard, where the set's stream then stood.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ....prw.files.atomic_write import PART, atomic_write
from ....prw.files.regular_file import read_regular_text
from ....prw.files.validate import shorten
from ...checkpoint.folder_guard import claim_folder
from .dataset import LatentShapes

ABOUT, EMPTY = "cache.json", "empty.safetensors"
HOLDS = "samples of other models or settings"
VERSION = 1
MAX_INDEX = 2**30
"""Bytes of a list of samples."""
SHARD_NAME = re.compile(r"\d{3,}-\d{6,}\.safetensors", re.ASCII)
KEY = "cologen_cache"
"""A shard's metadata that holds its ids, prompts and token counts."""


@dataclass(frozen=True)
class ShardEntry:
    """A shard in its process's list."""

    file: str
    size: int
    """In bytes."""
    kinds: list[tuple[LatentShapes, int]]
    """Latents' shapes and how many samples have them, in the file's order."""
    tokens: int
    """Tokens of the longest prompt."""
    taken: int
    """Samples in this and the earlier shards of its process."""
    state: dict[str, Any]
    """Where the set's stream stood afterwards."""

    def is_whole(self, folder: Path) -> bool:
        path = folder / self.file
        return path.is_file() and path.stat().st_size == self.size


def shard_name(rank: int, number: int) -> str:
    return f"{rank:03}-{number:06}.safetensors"


def cache_folder(cache: str | Path, task: str, name: str) -> Path:
    """Gives where a set's samples for a task lie in a cache."""
    return Path(cache) / f"{task}-{name}"


def read_json(path: Path) -> Any:
    try:
        return json.loads(read_regular_text(path, MAX_INDEX))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read ({shorten(error)}), expected what cologen data cache wrote: delete the folder "
            f"{path.parent} and cache its set again."
        ) from None


def write_json(path: Path, data: Any) -> None:
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(data), encoding="utf-8")


def read_entries(folder: Path, rank: int) -> list[ShardEntry]:
    """Reads one process's list of shards."""
    path = folder / f"{rank:03}.json"
    try:
        return [_parse_entry(data) for data in read_json(path)] if path.exists() else []
    except (TypeError, KeyError):
        raise ValueError(
            f"{path} is no list of shards, expected what cologen data cache wrote: delete the folder {folder} and cache "
            f"its set again."
        ) from None


def _parse_entry(data: Any) -> ShardEntry:
    """Makes an entry of JSON; raises TypeError or KeyError where it is none."""
    try:
        kinds = [((tuple(target), tuple(source)), count) for (target, source), count in data["kinds"]]
    except ValueError as error:
        raise TypeError from error
    fields: dict[str, Any] = {**data, "kinds": kinds}
    entry = ShardEntry(**fields)
    counts = [count for _, count in kinds]
    sizes = [size for shapes, _ in kinds for shape in shapes for size in shape]
    numbers = [entry.size, entry.tokens, entry.taken, *counts, *sizes]
    are_right = (
        isinstance(entry.file, str) and SHARD_NAME.fullmatch(entry.file),
        isinstance(entry.state, dict) and kinds,
        all(type(number) is int and number >= 0 for number in numbers),
        all(len(shape) == 3 for shapes, _ in kinds for shape in shapes),
    )
    # no sample takes less than a byte: so what a list says can cost no more memory than the disk holds
    if not all(are_right) or min(counts) < 1 or sum(counts) > entry.size:
        raise TypeError
    return entry


def write_entries(folder: Path, rank: int, entries: list[ShardEntry]) -> None:
    write_json(folder / f"{rank:03}.json", [asdict(entry) for entry in entries])


def read_all_entries(folder: Path) -> list[ShardEntry]:
    """Reads every process's shards in the order of their numbers: a folder that grows grows at the end."""
    ranks = sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal())
    entries = [(number, rank, entry) for rank in ranks for number, entry in enumerate(read_entries(folder, rank))]
    return [entry for _, _, entry in sorted(entries, key=lambda numbered: numbered[:2])]


def claim_cache(folder: Path, about: Mapping[str, Any]) -> None:
    """Refuses a folder whose samples other models or settings made."""
    advice = "cache into another folder, or with what it was begun with"
    claim_folder(folder / ABOUT, {"version": VERSION, **about}, HOLDS, advice)


def delete_partial_files(folder: Path, rank: int) -> None:
    """Clears away what a kill left half written."""
    for stray in folder.glob(f".{rank:03}*{PART}"):
        stray.unlink(missing_ok=True)
