"""Answers drawn into a folder: sharded over ranks, and gone on with after a stop. A picture that is there is not made again.

drawn/GROUP/ID.png    what was drawn; several groups where a benchmark wants several pictures a case
run.json              what with: a folder holds the answers of one bank and one way of sampling
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from PIL import Image

from ...prw.files.atomic_write import PART, whole
from ...prw.tasks import TASKS
from ..checkpoint.folder_guard import claim
from ..data.formats.picture_files import read_picture
from ..distributed import ranks
from .case import Case, area, pixels, resized
from .metrics import Answer
from .painter import Paint
from .protocols import Protocol

RUN = "run.json"
PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
"""Ids that can name a file as they are."""


def draw(
    paint: Paint, protocol: Protocol, cases: Iterable[Case], out: Path, side: int, seed: int, say: Callable[[str], None]
) -> None:
    """This rank's share: every so manieth case. What is drawn for one follows from its id and the seed alone."""
    for number, case in enumerate(cases):
        missing = [path for path in places(protocol, case, out) if not path.exists()]
        if number % ranks.count() != ranks.rank() or not missing:
            continue
        source = pixels(case.source)
        source = resized(source, protocol.fit(source.shape, side))
        over = TASKS[protocol.task].position == "aligned"
        size = source.shape[:2] if over else area((side, side), side)
        for path in missing:
            picture = paint(protocol.task, source, case.prompt, size, seed_of(case.id, path.parent.name, seed))
            with whole(path) as partial:
                Image.fromarray(picture).save(partial, format="PNG")
        say(f"{number + 1}: {case.id}")


def places(protocol: Protocol, case: Case, out: Path) -> list[Path]:
    name = case.id if PLAIN.fullmatch(case.id) else hashlib.blake2b(case.id.encode(), digest_size=16).hexdigest()
    return [out / "drawn" / str(group) / f"{name}.png" for group in range(protocol.each)]


def answers(protocol: Protocol, cases: Iterable[Case], out: Path) -> Iterator[Answer]:
    """Those that are there."""
    for case in cases:
        for group, path in enumerate(places(protocol, case, out)):
            if path.exists():
                yield Answer(case, partial(read_picture, path, path.parent), path, group)


def distinct(cases: Iterable[Case], most: int = 0) -> Iterator[Case]:
    """The first so many (0: all), each with an id of its own."""
    known = set()
    for case in islice(cases, most or None):
        if case.id in known:
            raise ValueError(f"Two cases of the benchmark are called {case.id}, expected each once: unpack it again.")
        known.add(case.id)
        yield case


def seed_of(id: str, group: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {group} {id}".encode(), digest_size=7).digest(), "big")


def claim_answers(out: Path, settings: dict) -> None:
    """Refuses a folder with answers of another bank, seed or way of sampling; clears what a kill left half written."""
    if not any((out / "drawn").glob("*/*.png")):
        (out / RUN).unlink(missing_ok=True)  # nobody's yet
    claim(out / RUN, settings, "answers that were drawn otherwise", "choose another folder with --out")
    for stray in (out / "drawn").glob(f"*/.*{PART}"):
        stray.unlink(missing_ok=True)
