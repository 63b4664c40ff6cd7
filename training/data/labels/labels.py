"""Labels: things of pictures that come without, written as JSON lines, part by part, and read by the picture's id.

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
from ....prw.files.regular_file import open_regular
from ....prw.files.validate import shorten
from ...checkpoint.folder_guard import claim_folder
from ..box import Size
from ..formats.picture_files import BrokenFile
from ..formats.records import parse_things
from ..sample import AnySample, Sample, Thing
from ..sets.folder import PictureFiles
from ..sets.stream import Stream

ABOUT = "labels.json"
PART = 500
"""Pictures in a file, which is what a crash costs."""


def write_labels(
    stream: Stream,
    label: Callable[[Sequence[Sample]], list[list[dict]]],
    by: str,
    folder: Path,
    models: Mapping[str, Any] | None = None,
    batch: int = 8,
    part: int = PART,
) -> Iterator[int]:
    """Labels a stream's pictures; yields, part by part, how many are done. `by` says how phrases are found.

    A part is there whole before the position behind it is saved: what is done twice after a crash has the same name.
    """
    about = {"phrases": by, "shares": stream.world, **(models or {})}
    claim_folder(folder / ABOUT, about, "labels of another kind", "label into another folder, or as it was begun")
    share = f"{stream.rank:03}-of-{stream.world:03}"
    position, number = folder / f"{share}.json", 0
    if position.exists():
        saved = json.loads(position.read_text(encoding="utf-8"))
        stream.load_state_dict(saved["stream"])
        number = saved["parts"]
    samples = iter(stream)
    while stream.epoch == 0:
        lines: list[str] = []
        while len(lines) < part and (pictures := check_pictures(stream.name, list(islice(samples, batch)))):
            for sample, things in zip(pictures, label(pictures)):
                lines.append(json.dumps({"id": sample.id, "by": by, "things": things}) + "\n")
        if lines:
            with atomic_write(folder / f"{share}-{number:05}.jsonl") as partial:
                partial.write_text("".join(lines), encoding="utf-8")
            number += 1
        with atomic_write(position) as partial:
            partial.write_text(json.dumps({"stream": stream.state_dict(), "parts": number}), encoding="utf-8")
        yield stream.counter.seen


def check_pictures(name: str, samples: Sequence[AnySample | PictureFiles]) -> list[Sample]:
    pictures = [sample for sample in samples if isinstance(sample, Sample)]
    if len(pictures) < len(samples):
        raise ValueError(f"{name} holds no single pictures, expected pictures with captions to label.")
    return pictures


class Labels:
    """A folder of labels. In memory is only where each picture's line begins."""

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def positions(self) -> dict[str, tuple[Path, int]]:
        """Id -> file and byte."""
        positions = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            with open_regular(path) as file:
                while True:
                    start = file.tell()
                    line = file.readline()
                    if not line:
                        break
                    try:
                        positions[json.loads(line)["id"]] = (path, start)
                    except (ValueError, KeyError, TypeError, RecursionError) as error:
                        raise ValueError(
                            f"{path.name} is damaged at byte {start} ({shorten(error)}): label it again."
                        ) from None
        if not positions:
            raise FileNotFoundError(f"There are no labels in {self.folder}: make them with cologen data label.")
        return positions

    def things(self, id: str, size: Size) -> tuple[Thing, ...]:
        """Reads a picture's things; none, if it was not labelled."""
        if id not in self.positions:
            return ()
        path, start = self.positions[id]
        try:
            with open_regular(path) as file:
                file.seek(start)
                return parse_things(json.loads(file.readline()).get("things", []), size)
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise BrokenFile(f"its labels cannot be read ({shorten(error)})") from None
