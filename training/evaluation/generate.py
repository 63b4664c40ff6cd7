"""Generates answers into a folder, sharded over ranks; a picture that is there is not made again.

drawn/GROUP/ID.png    the answers; several groups where a benchmark wants several pictures a case
run.json              their settings: a folder holds the answers of one bank and one way of sampling
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from PIL import Image

from ...prw.files.atomic_write import PART, atomic_write
from ...prw.tasks import TASKS
from ..checkpoint.folder_guard import claim_folder
from ..data.formats.picture_files import read_picture
from ..distributed import ranks
from .case import Case, fit_area, read_pixels, resize
from .image_generator import GenerateImage
from .metrics import Answer
from .protocols import Protocol

RUN = "run.json"
PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
"""Ids that can name a file as they are."""


def generate_answers(
    generate: GenerateImage,
    protocol: Protocol,
    cases: Iterable[Case],
    out: Path,
    side: int,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Generates what is missing of this rank's share; a case's pictures follow from its id and the seed alone."""
    for number, case in enumerate(cases):
        missing = [path for path in list_paths(protocol, case, out) if not path.exists()]
        if number % ranks.world_size() != ranks.rank() or not missing:
            continue
        assert case.source is not None
        source = read_pixels(case.source)
        source = resize(source, protocol.fit(source.shape, side))
        is_aligned = TASKS[protocol.task].position == "aligned"
        size = source.shape[:2] if is_aligned else fit_area((side, side), side)
        for path in missing:
            picture = generate(protocol.task, source, case.prompt, size, derive_seed(case.id, path.parent.name, seed))
            with atomic_write(path) as partial:
                Image.fromarray(picture).save(partial, format="PNG")
        say(f"{number + 1}: {case.id}")


def list_paths(protocol: Protocol, case: Case, out: Path) -> list[Path]:
    """Lists where a case's pictures go."""
    name = case.id if PLAIN.fullmatch(case.id) else hashlib.blake2b(case.id.encode(), digest_size=16).hexdigest()
    return [out / "drawn" / str(group) / f"{name}.png" for group in range(protocol.images_per_case)]


def read_answers(protocol: Protocol, cases: Iterable[Case], out: Path) -> Iterator[Answer]:
    """Yields the answers whose pictures are there."""
    for case in cases:
        for group, path in enumerate(list_paths(protocol, case, out)):
            if path.exists():
                yield Answer(case, partial(read_picture, path, path.parent), path, group)


def limit_cases(cases: Iterable[Case], count: int = 0) -> Iterator[Case]:
    """Yields the first `count` cases (0: all); raises ValueError if two share an id."""
    ids: set[str] = set()
    for case in islice(cases, count or None):
        if case.id in ids:
            raise ValueError(f"Two cases of the benchmark are called {case.id}, expected each once: unpack it again.")
        ids.add(case.id)
        yield case


def derive_seed(id: str, group: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {group} {id}".encode(), digest_size=7).digest(), "big")


def claim_answers(out: Path, settings: dict) -> None:
    """Checks that a folder's answers, if any, have these settings, and removes files that a kill left half written."""
    if not any((out / "drawn").glob("*/*.png")):
        (out / RUN).unlink(missing_ok=True)  # nobody's yet
    claim_folder(out / RUN, settings, "answers that were drawn otherwise", "choose another folder with --out")
    for stray in (out / "drawn").glob(f"*/.*{PART}"):
        stray.unlink(missing_ok=True)
