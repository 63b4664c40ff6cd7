"""The data sets of the paper's Table 1, and four ways to bring one's own.

A new data set is one row in DATASETS. If none of the readers fits its files, it is also a reader: a subclass of
`ListedReader` (reader.py) or of those in generic.py, in a file of its own here.

Nothing is downloaded, but what the user asks for by name (generic.Parquet). Links and licences: look there before use.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from ....prw.files.validate import build, check_choice, check_multiple, check_range, check_type, shorten
from ....prw.tasks import TASKS
from .ade20k import Ade20k
from .captioned import Captioned
from .coco_stuff import CocoStuff
from .edits import MagicBrush, OmniEdit
from .generic import JsonLines, OwnFolder, Parquet, WebDataset
from .journeydb import JourneyDb
from .lvis import Lvis
from .multigen import MultiGen, MultiGenDepth, MultiGenDepthParquet, MultiGenParquet
from .reader import Reader
from .refcoco import RefCoco, RefCocoG, RefCocoPlus
from .subjects200k import Subjects200k


class DatasetInfo(NamedTuple):
    """What is known of a data set before it is opened."""

    taken_for: tuple[str, ...]
    """Tasks that the paper takes it for; none: every task."""
    readers: tuple[type[Reader], ...]
    """One for every layout in which the set is public: the first that fits the folder reads it."""
    home: str
    """A link."""
    licence: str
    """As its makers state it; of the pictures, where they say so."""
    kinds: tuple[str, ...] = ()
    """Control maps that the paper takes from it."""

    @property
    def feeds(self) -> tuple[str, ...]:
        """The tasks that it can train."""
        return self.taken_for or tuple(TASKS)


NAME = re.compile(r"\w[\w.+-]{0,63}")
"""What a table may be called: its name becomes part of file names."""
REFER = "https://github.com/lichengunc/refer"
COCO_TERMS = "annotations CC BY 4.0, pictures by Flickr's terms"
REFER_TERMS = "not stated for the references; pictures by Flickr's terms"
DATASETS = {
    "ade20k": DatasetInfo(
        ("inpaint", "control"),
        (Ade20k, Captioned),
        "http://sceneparsing.csail.mit.edu",
        "annotations BSD-3, pictures for research alone",
        ("seg",),
    ),
    "coco-stuff": DatasetInfo(
        ("inpaint", "control"), (CocoStuff, Captioned), "https://github.com/nightrome/cocostuff", COCO_TERMS, ("seg",)
    ),
    "journeydb": DatasetInfo(
        ("inpaint",),
        (JourneyDb,),
        "https://huggingface.co/datasets/JourneyDB/JourneyDB",
        "for research alone, on request",
    ),
    "refcoco": DatasetInfo(("ground",), (RefCoco,), REFER, REFER_TERMS),
    "refcoco+": DatasetInfo(("ground",), (RefCocoPlus,), REFER, REFER_TERMS),
    "refcocog": DatasetInfo(("ground",), (RefCocoG,), REFER, REFER_TERMS),
    "lvis": DatasetInfo(("ground", "inpaint"), (Lvis,), "https://www.lvisdataset.org", COCO_TERMS),
    "multigen-20m": DatasetInfo(
        ("control",),
        (MultiGen, MultiGenParquet),
        "https://huggingface.co/datasets/limingcv/MultiGen-20M_train",
        "not stated; pictures from LAION",
        ("canny", "hed", "lineart"),
    ),
    "multigen-20m-depth": DatasetInfo(
        ("control",),
        (MultiGenDepth, MultiGenDepthParquet),
        "https://huggingface.co/datasets/limingcv/MultiGen-20M_depth",
        "not stated; pictures from LAION",
        ("depth",),
    ),
    "subjects200k": DatasetInfo(
        ("subject",), (Subjects200k,), "https://huggingface.co/datasets/Yuanshi/Subjects200K", "Apache-2.0"
    ),
    "omniedit": DatasetInfo(
        ("edit",), (OmniEdit,), "https://huggingface.co/datasets/TIGER-Lab/OmniEdit-Filtered-1.2M", "MIT"
    ),
    "magicbrush": DatasetInfo(
        ("edit",), (MagicBrush,), "https://huggingface.co/datasets/osunlp/MagicBrush", "CC BY 4.0"
    ),
    "folder": DatasetInfo((), (OwnFolder,), "", "your own"),
    "json-lines": DatasetInfo((), (JsonLines,), "", "your own"),
    "parquet": DatasetInfo((), (Parquet,), "", "your own"),
    "webdataset": DatasetInfo((), (WebDataset,), "", "your own"),
}


@dataclass(frozen=True)
class Knobs:
    """What every table [data.NAME] may say, beside its reader's settings. Its repr is part of what encoded samples are of:
    class and fields keep their names."""

    set: str = ""
    """A row of DATASETS; empty: the table's own name."""
    examples: int = 0
    """How many are taken; 0: each sample once."""
    kinds: tuple[str, ...] = ()
    """Of the task: control maps, or forms of answers. Empty: the set's, or all."""
    labels: str = ""
    """A folder that `cologen data label` wrote: things, for pictures that come without."""
    flip: float = 0.0
    """Share of crops that is mirrored, which spoils lettering and faces that one knows."""
    variants: int = 1
    """How often each sample is taken, every time with a crop, a hole, a kind of its own, if `examples` says nothing."""
    resolutions: tuple[int, ...] = ()
    """Instead of the recipe's one, smallest first; no picture is enlarged for a larger one."""
    aspect: float = 1.0
    """Shapes of up to so much to one; 1: squares."""
    maps: str = field(default="", repr=False)
    """A folder of networks that draw HED and line art, each used if its file is there (tasks/learned_maps.py)."""
    cache: str = ""
    """The folder that `cologen data cache` fills, and that training reads."""

    def __post_init__(self):
        check_range("examples", self.examples, 0, 10**8)
        check_range("flip", self.flip, 0, 1)
        check_range("variants", self.variants, 1, 10**6)
        check_range("aspect", self.aspect, 1, 8)
        for resolution in self.resolutions:
            check_range("resolutions", resolution, 16, 8192)
            check_multiple("resolutions", resolution, 16)
        if list(self.resolutions) != sorted(set(self.resolutions)):
            raise ValueError(f"resolutions is {list(self.resolutions)}, expected each once, smallest first")


@dataclass(frozen=True)
class OpenDataset:
    """A data set, ready to be read."""

    name: str
    info: DatasetInfo
    reader: Reader
    knobs: Knobs = field(default_factory=Knobs)


def open_dataset(name: str, table: Mapping[str, Any]) -> OpenDataset:
    """Opens the data set of a recipe's table [data.NAME]."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"data.{shorten(name)} is no name for a set, expected letters, digits, _, -, + and dots: rename it"
        )
    where = f"data.{name}"
    common = {entry.name for entry in fields(Knobs)}
    knobs = build(Knobs, {key: value for key, value in table.items() if key in common}, where)
    check_choice(f"{where}.set", knobs.set or name, tuple(DATASETS))
    info = DATASETS[knobs.set or name]
    settings = {key: value for key, value in table.items() if key not in common}
    reader = find_reader(info, check_type(f"{where}.path", settings.get("path", ""), str), where)
    return OpenDataset(name, info, build(reader, settings, where), knobs)


def find_reader(info: DatasetInfo, path: str, where: str) -> type[Reader]:
    """Finds the reader of the layout that is there."""
    if not path:
        raise ValueError(f"{where} has no path, expected the folder of the set: {describe_layouts(info)}")
    for reader in info.readers:
        if reader.matches(path):
            return reader
    if "://" not in path and not Path(path).exists():
        raise FileNotFoundError(f"There is no {path} ({where}), expected {describe_layouts(info)}: check the path.")
    raise FileNotFoundError(f"{path} ({where}) is not laid out as expected, which is {describe_layouts(info)}.")


def describe_layouts(info: DatasetInfo) -> str:
    return "; or ".join(reader.LAYOUT for reader in info.readers)
