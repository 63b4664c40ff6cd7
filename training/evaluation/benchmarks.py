"""Readers of the paper's benchmarks, from folders as their makers publish them; pictures are decoded when they are needed."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...prw.files.regular_file import read_regular_text
from ..data.formats.parquet import is_in_split, read_rows
from ..data.formats.picture_files import BrokenFile, decode_labels, decode_picture, read_picture
from ..data.tasks.canny import canny
from ..data.tasks.control import repeat_channels
from .case import Case, resize
from .lines import LineNetwork
from .networks import MetricNetworks, import_library
from .segmentation import IGNORE_LABEL

LIVE = {"cat", "dog"}
"""DreamBench's nouns of animals, which have prompts of their own."""
PROMPT = re.compile(r"'(a [^']*)'\.format")
SUBJECT = re.compile(r"^([\w]+),([\w ]+)$", re.MULTILINE)
MAX_LIST = 2**28
"""Bytes of a list of questions."""
PROMPTS = 25
"""Length of each of DreamBench's two lists of prompts."""


def read_magicbrush(root: Path, side: int, networks: MetricNetworks) -> Iterator[Case]:
    captions = _read_json(next(iter(sorted(root.glob("local_*.json"))), root / "local_descriptions.json"))
    for number, turns in _read_json(root / "edit_sessions.json").items():
        for count, turn in enumerate(turns, 1):
            before, after = (
                _defer_reading(root / "images" / number / turn[name], root) for name in ("input", "output")
            )
            caption = {"caption": captions[number][turn["output"]]}
            yield Case(f"{number}-{count}", before, turn["instruction"], after, caption)


def read_emuedit(root: Path, side: int, networks: MetricNetworks) -> Iterator[Case]:
    columns = ("image", "instruction", "output_caption")
    for i, row in enumerate(_read_rows(root, "test", columns)):
        yield Case(
            f"{i:05}", _defer_decoding(row["image"]), row["instruction"], None, {"caption": row["output_caption"]}
        )


def read_dreambench(root: Path, side: int, networks: MetricNetworks) -> Iterator[Case]:
    folder = root / "dataset" if (root / "dataset").is_dir() else root
    text = _read_text(folder / "prompts_and_classes.txt")
    prompts = [prompt for prompt in PROMPT.findall(text) if "{1}" in prompt]
    if len(prompts) != 2 * PROMPTS:
        raise BrokenFile(f"prompts_and_classes.txt in {folder} has {len(prompts)} prompts, expected {2 * PROMPTS}")
    for subject, noun in SUBJECT.findall(text.partition("Prompts")[0]):
        if subject == "subject_name":  # the table's head
            continue
        photos = [_defer_reading(path, root) for path in sorted((folder / subject).glob("*.jpg"))]
        if not photos:
            raise BrokenFile(f"{folder / subject} has no photograph *.jpg of the subject")
        for i, prompt in enumerate(prompts[PROMPTS:] if noun in LIVE else prompts[:PROMPTS]):
            filled = prompt.replace("{0} ", "").replace("{1}", noun)
            yield Case(f"{subject}-{i:02}", photos[0], filled, None, {"photos": photos})


def read_multigen_canny(root: Path, side: int, networks: MetricNetworks) -> Iterator[Case]:
    for i, row in enumerate(_read_rows(root, "validation", ("image", "text"))):
        photo = _defer_decoding(row["image"])
        yield Case(f"{i:05}", lambda photo=photo: canny(resize(photo(), (side, side))), row["text"], photo)


def read_multigen_depth(root: Path, side: int, networks: MetricNetworks) -> Iterator[Case]:
    for i, row in enumerate(_read_rows(root, "validation", ("image", "control_depth", "text"))):
        yield Case(f"{i:05}", _defer_decoding(row["control_depth"]), row["text"], _defer_decoding(row["image"]))


def read_multigen_lineart(root: Path, side: int, networks: MetricNetworks) -> Iterator[Case]:
    """Reads cases whose sources are drawn by the network that measures."""
    lines = networks.load("lines", LineNetwork)
    for i, row in enumerate(_read_rows(root, "validation", ("image", "text"))):
        photo = _defer_decoding(row["image"])

        def source(photo: Callable[[], np.ndarray] = photo) -> np.ndarray:
            return repeat_channels(lines.predict(resize(photo(), (side, side))))

        yield Case(f"{i:05}", source, row["text"], photo)


def read_ade20k(root: Path, side: int, networks: MetricNetworks) -> Iterator[Case]:
    def labels(value: Any) -> np.ndarray:
        numbers = _read_labels(
            value
        )  # 0 is what is no class, which the network does not know: 1 to 150 become 0 to 149
        return np.where(numbers == 0, IGNORE_LABEL, numbers - 1)

    yield from _read_segmented(root, "seg_map", labels)


def read_cocostuff(root: Path, side: int, networks: MetricNetworks) -> Iterator[Case]:
    yield from _read_segmented(root, "panoptic_seg_map", _read_labels)


def _read_segmented(root: Path, column: str, labels: Callable[[Any], np.ndarray]) -> Iterator[Case]:
    for i, row in enumerate(_read_rows(root, "validation", ("image", "control_seg", column, "prompt"))):
        extra = {"labels": partial(labels, row[column])}
        yield Case(f"{i:05}", _defer_decoding(row["control_seg"]), row["prompt"], _defer_decoding(row["image"]), extra)


def read_gedit(root: Path, side: int, networks: MetricNetworks) -> Iterator[Case]:
    columns = ("key", "task_type", "instruction", "instruction_language", "input_image_raw")
    for row in _read_rows(root, "train", columns):
        if row["instruction_language"] == "en":
            extra = {"group": row["task_type"]}
            yield Case(str(row["key"]), _defer_decoding(row["input_image_raw"]), row["instruction"], None, extra)


def _read_rows(root: Path, split: str, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Yields the rows of a split's Parquet files: their names begin with it, or they lie in a folder of its name."""
    import_library("pyarrow.parquet")
    files = [path for path in sorted(root.rglob("*.parquet")) if is_in_split(path.relative_to(root).as_posix(), split)]
    if not files:
        raise FileNotFoundError(f"{root} holds no {split}*.parquet, expected the benchmark as it is published.")
    for path in files:
        for row in read_rows(str(path), columns):
            if "broken" in row:
                raise BrokenFile(
                    f"{path.name}, {row['id']}: {row['broken']}, expected the benchmark as it is published"
                )
            if missing := [name for name in columns if name not in row["record"]]:
                raise BrokenFile(f"{path.name} has no column {missing[0]}, expected {', '.join(columns)}")
            yield row["record"]


def _defer_reading(path: Path, root: Path) -> partial:
    return partial(read_picture, path, root)


def _defer_decoding(value: Any) -> partial:
    return partial(_decode, value)


def _decode(value: Any) -> np.ndarray:
    """Decodes a picture from an object with bytes, as data sets on a hub have it."""
    return decode_picture(_get_bytes(value), "a picture of the benchmark")


def _read_labels(value: Any) -> np.ndarray:
    """Returns class numbers, from a picture of them or from nested lists."""
    numbers = decode_labels(_get_bytes(value), "a picture of labels") if isinstance(value, Mapping) else np.array(value)
    return numbers.astype(np.int64)


def _get_bytes(value: Any) -> bytes:
    data = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(data, bytes):
        raise BrokenFile("a picture of the benchmark has no bytes in its Parquet file")
    return data


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path.name} in {path.parent}, expected the benchmark as it is published.")
    return read_regular_text(path, MAX_LIST)


def _read_json(path: Path) -> dict:
    try:
        return json.loads(_read_text(path))
    except (ValueError, RecursionError):
        raise BrokenFile(f"{path} is no whole JSON: unpack the benchmark again") from None
