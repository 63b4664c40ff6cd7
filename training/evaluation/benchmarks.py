"""The paper's benchmarks, read from folders as their makers publish them. Nothing is decoded before it is asked for."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..data.formats.parquet import of_split, rows_in
from ..data.formats.picture_files import Broken, labels_of, picture_of, read_picture
from ..data.tasks.canny import canny
from .case import Case, resized
from .lines import Lines
from .networks import Shelf, library
from .segmentation import IGNORED

LIVE = {"cat", "dog"}
PROMPT = re.compile(r"'(a [^']*\{1\}[^']*)'\.format")
SUBJECT = re.compile(r"^([\w]+),([\w ]+)$", re.MULTILINE)
PROMPTS = 25
"""Of each of DreamBench's two lists."""


def magicbrush(root: Path, side: int, shelf: Shelf) -> Iterator[Case]:
    captions = _json(next(iter(sorted(root.glob("local_*.json"))), root / "local_descriptions.json"))
    for number, turns in _json(root / "edit_sessions.json").items():
        for count, turn in enumerate(turns, 1):
            before, after = (_picture(root / "images" / number / turn[name], root) for name in ("input", "output"))
            caption = {"caption": captions[number][turn["output"]]}
            yield Case(f"{number}-{count}", before, turn["instruction"], after, caption)


def emuedit(root: Path, side: int, shelf: Shelf) -> Iterator[Case]:
    columns = ("image", "instruction", "output_caption")
    for i, row in enumerate(_rows(root, "test", columns)):
        yield Case(f"{i:05}", _decoded(row["image"]), row["instruction"], None, {"caption": row["output_caption"]})


def dreambench(root: Path, side: int, shelf: Shelf) -> Iterator[Case]:
    folder = root / "dataset" if (root / "dataset").is_dir() else root
    told = _text(folder / "prompts_and_classes.txt")
    prompts = PROMPT.findall(told)
    if len(prompts) != 2 * PROMPTS:
        raise Broken(f"prompts_and_classes.txt in {folder} has {len(prompts)} prompts, expected {2 * PROMPTS}")
    for subject, noun in SUBJECT.findall(told.partition("Prompts")[0]):
        if subject == "subject_name":  # the table's head
            continue
        photos = [_picture(path, root) for path in sorted((folder / subject).glob("*.jpg"))]
        if not photos:
            raise Broken(f"{folder / subject} has no photograph *.jpg of the subject")
        for i, prompt in enumerate(prompts[PROMPTS:] if noun in LIVE else prompts[:PROMPTS]):
            words = prompt.replace("{0} ", "").replace("{1}", noun)
            yield Case(f"{subject}-{i:02}", photos[0], words, None, {"photos": photos})


def multigen_canny(root: Path, side: int, shelf: Shelf) -> Iterator[Case]:
    for i, row in enumerate(_rows(root, "validation", ("image", "text"))):
        photo = _decoded(row["image"])
        yield Case(f"{i:05}", lambda photo=photo: canny(resized(photo(), (side, side))), row["text"], photo)


def multigen_depth(root: Path, side: int, shelf: Shelf) -> Iterator[Case]:
    for i, row in enumerate(_rows(root, "validation", ("image", "control_depth", "text"))):
        yield Case(f"{i:05}", _decoded(row["control_depth"]), row["text"], _decoded(row["image"]))


def multigen_lineart(root: Path, side: int, shelf: Shelf) -> Iterator[Case]:
    """The network that measures draws the sources, too."""
    lines = shelf.take("lines", Lines)
    for i, row in enumerate(_rows(root, "validation", ("image", "text"))):
        photo = _decoded(row["image"])

        def source(photo=photo) -> np.ndarray:
            return np.repeat(lines.map(resized(photo(), (side, side)))[..., None], 3, -1)

        yield Case(f"{i:05}", source, row["text"], photo)


def ade20k(root: Path, side: int, shelf: Shelf) -> Iterator[Case]:
    def labels(value) -> np.ndarray:
        found = _labels(value)  # 0 is what is no class, which the network does not know: 1 to 150 become 0 to 149
        return np.where(found == 0, IGNORED, found - 1)

    yield from _segmented(root, "seg_map", labels)


def cocostuff(root: Path, side: int, shelf: Shelf) -> Iterator[Case]:
    yield from _segmented(root, "panoptic_seg_map", _labels)


def _segmented(root: Path, column: str, labels) -> Iterator[Case]:
    for i, row in enumerate(_rows(root, "validation", ("image", "control_seg", column, "prompt"))):
        extra = {"labels": partial(labels, row[column])}
        yield Case(f"{i:05}", _decoded(row["control_seg"]), row["prompt"], _decoded(row["image"]), extra)


def gedit(root: Path, side: int, shelf: Shelf) -> Iterator[Case]:
    columns = ("key", "task_type", "instruction", "instruction_language", "input_image_raw")
    for row in _rows(root, "train", columns):
        if row["instruction_language"] == "en":
            extra = {"group": row["task_type"]}
            yield Case(str(row["key"]), _decoded(row["input_image_raw"]), row["instruction"], None, extra)


def _rows(root: Path, split: str, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Of the Parquet files of a split: their names begin with it, or they lie in a folder of its name."""
    library("pyarrow.parquet")
    files = [path for path in sorted(root.rglob("*.parquet")) if of_split(path.relative_to(root).as_posix(), split)]
    if not files:
        raise FileNotFoundError(f"{root} holds no {split}*.parquet, expected the benchmark as it is published.")
    for path in files:
        for row in rows_in(str(path), columns):
            if lost := [name for name in columns if name not in row["record"]]:
                raise Broken(f"{path.name} has no column {lost[0]}, expected {', '.join(columns)}")
            yield row["record"]


def _picture(path: Path, root: Path) -> partial:
    return partial(read_picture, path, root)


def _decoded(value: Any) -> partial:
    return partial(_drawn, value)


def _drawn(value: Any) -> np.ndarray:
    """From an object with bytes, as data sets on a hub have it."""
    return picture_of(_bytes(value), "a picture of the benchmark")


def _labels(value: Any) -> np.ndarray:
    """Class numbers, from a picture of them or from nested lists."""
    found = labels_of(_bytes(value), "a picture of labels") if isinstance(value, Mapping) else np.array(value)
    return found.astype(np.int64)


def _bytes(value: Any) -> bytes:
    data = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(data, bytes):
        raise Broken("a picture of the benchmark has no bytes in its Parquet file")
    return data


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path.name} in {path.parent}, expected the benchmark as it is published.")
    return path.read_text(encoding="utf-8")


def _json(path: Path) -> dict:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError):
        raise Broken(f"{path} is no whole JSON: unpack the benchmark again") from None
