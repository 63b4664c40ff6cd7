"""Things of pictures that a set leaves without: written beside it as JSON lines, part by part, and found by id.

000-of-004-00007.jsonl    a line a picture: {"id", "by", "things": [{"name", "kind", "mask"}]}
000-of-004.json           where this share is to go on
labels.json               what made them
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from ....prw.files.atomic_write import atomic_write
from ....prw.files.validate import shorten
from ...checkpoint.folder_guard import claim_folder
from ..box import Size
from ..formats.picture_files import BrokenFile
from ..formats.records import parse_things
from ..sample import Sample, Thing
from ..sets.stream import Stream

ABOUT = "labels.json"
PART = 500
"""Pictures in a file: what a crash costs."""


def write_labels(
    stream: Stream,
    label: Callable[[Sequence[Sample]], list[list[dict]]],
    by: str,
    folder: Path,
    models: Mapping[str, Any] | None = None,
    batch: int = 8,
    part: int = PART,
) -> Iterator[int]:
    """Says, part by part, how many are done. A part is there whole before the place behind it is kept: what is done
    twice after a crash has the same name."""
    about = {"phrases": by, "shares": stream.world, **(models or {})}
    claim_folder(folder / ABOUT, about, "labels of another kind", "label into another folder, or as it was begun")
    share = f"{stream.rank:03}-of-{stream.world:03}"
    place, number = folder / f"{share}.json", 0
    if place.exists():
        kept = json.loads(place.read_text(encoding="utf-8"))
        stream.load_state_dict(kept["stream"])
        number = kept["parts"]
    samples = iter(stream)
    while stream.epoch == 0:
        lines: list[str] = []
        while len(lines) < part and (some := list(islice(samples, batch))):
            if not all(isinstance(one, Sample) for one in some):
                raise ValueError(f"{stream.name} holds no single pictures, expected pictures with captions to label.")
            for sample, things in zip(some, label(some)):
                lines.append(json.dumps({"id": sample.id, "by": by, "things": things}) + "\n")
        if lines:
            with atomic_write(folder / f"{share}-{number:05}.jsonl") as partial:
                partial.write_text("".join(lines), encoding="utf-8")
            number += 1
        with atomic_write(place) as partial:
            partial.write_text(json.dumps({"stream": stream.state_dict(), "parts": number}), encoding="utf-8")
        yield stream.counter.seen


class Labels:
    """A folder of them. In memory is where each picture's line begins."""

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def places(self) -> dict[str, tuple[Path, int]]:
        found = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            with path.open("rb") as file:
                while True:
                    start = file.tell()
                    line = file.readline()
                    if not line:
                        break
                    try:
                        found[json.loads(line)["id"]] = (path, start)
                    except (ValueError, KeyError, TypeError) as error:
                        raise ValueError(
                            f"{path.name} is damaged at byte {start} ({shorten(error)}): label it again."
                        ) from None
        if not found:
            raise FileNotFoundError(f"There are no labels in {self.folder}: make them with cologen data label.")
        return found

    def things(self, id: str, size: Size) -> tuple[Thing, ...]:
        """None, for a picture that was not labelled."""
        if id not in self.places:
            return ()
        path, start = self.places[id]
        try:
            with path.open("rb") as file:
                file.seek(start)
                return parse_things(json.loads(file.readline()).get("things", []), size)
        except (OSError, ValueError) as error:
            raise BrokenFile(f"its labels cannot be read ({shorten(error)})") from None
