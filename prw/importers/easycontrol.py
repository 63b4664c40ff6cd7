"""EasyControl's and OmniConsistency's files: one condition each, with the topology of our source stream.

Their condition tokens see only themselves, at timestep 0, through FLUX's image-side weights, as ours do. Beyond k and v
their LoRA bends q everywhere, and in double blocks what the output projection made of attention ("proj": it is fed the
projection's own output). There is no alpha: the scale is 1. The condition is told the picture's own guidance, is a
square of 512 pixels, and lies over the target from the corner, or, as a subject, 64 tokens below.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..bank import Bank
from ..bank_info import BankError, BankInfo, ExpertInfo
from ..bank_shapes import check_tensors
from ..config import Base
from ..habits import Habits
from ..renamed import Renamed
from ..safe_file import SafeFile
from .names import expert_name

SIDE = 512
OVER = Habits(guidance="live", position="corner", side=SIDE, fit="stretch", hole="black")
SUBJECT = Habits(guidance="live", position="below", side=SIDE, fit="pad", hole="black")
EASYCONTROL = "Apache-2.0 on the model page; for research purposes only, says the authors' README"
OMNICONSISTENCY = "see showlab/OmniConsistency"


class Kind(NamedTuple):
    """What a file is for, which nothing in it says."""

    task: str
    habits: Habits
    triggers: tuple[str, ...] = ()
    licence: str = EASYCONTROL


KINDS = {
    "canny": Kind("control", OVER),
    "depth": Kind("control", OVER),
    "hedsketch": Kind("control", OVER),
    "pose": Kind("control", OVER),
    "seg": Kind("control", OVER),
    "inpainting": Kind("inpaint", OVER),
    "subject": Kind("subject", SUBJECT, ("SKS",)),
    "ghibli": Kind("edit", OVER, ("Ghibli Studio style, Charming hand-drawn anime-style illustration",)),
    "omniconsistency": Kind("edit", OVER, licence=OMNICONSISTENCY),
    "spatial": Kind("control", OVER, licence=""),
}
"""By a word in the file's name. "spatial" is anybody's own that is laid over the picture."""

KEY = re.compile(
    r"(?:transformer\.)?(single_)?transformer_blocks\.(\d{1,3})\.attn\.(?:processor\.)?"
    r"(?:cond_)?([qkv]|proj)_loras\.(\d{1,2})\.(down|up)\.weight"
)
MARK, LOOKED_AT = (
    re.compile(rb"transformer_blocks\.\d+\.attn\.[\w.]*(?:[qkv]|proj)_loras\.\d+\.(?:down|up)\.weight"),
    1 << 16,
)
TARGETS = {"q": "all", "k": "all", "v": "all", "proj": "double"}


def claims(names: Iterable[str]) -> bool:
    return any(KEY.fullmatch(name) for name in names)


def looks_like_easycontrol(path: str | os.PathLike) -> bool:
    """By the beginning of its header alone, for lists of many files."""
    try:
        with open(path, "rb") as file:
            return MARK.search(file.read(LOOKED_AT)) is not None
    except OSError:
        return False


def read(file: SafeFile, name: str = "", kind: str = "auto") -> Bank:
    """One expert for each condition of the file, most have one."""
    what, name = _kind(file.path, kind), expert_name(name or file.path.stem)
    names, counts, numbers = {}, {"double": 0, "single": 0}, set()
    for key in file:
        match = KEY.fullmatch(key)
        if match is None:
            raise BankError(
                f"{file.path.name} holds {key[:80]!r} beside EasyControl's tensors: it is another kind of file."
            )
        single, block, target, number, part = match.groups()
        where = "single" if single else "double"
        counts[where] = max(counts[where], int(block) + 1)
        numbers.add(int(number))
        names[f"experts.{_named(name, int(number))}.{where}_blocks.{int(block)}.{target}.{part}"] = key
    rank, dim = _shape(file)
    expert = ExpertInfo(
        rank=rank,
        alpha=rank,
        targets=TARGETS,
        task=what.task,
        data=file.path.name,
        licence=what.licence,
        triggers=what.triggers,
        habits=what.habits,
    )
    base = Base(hidden_size=dim, double_blocks=counts["double"], single_blocks=counts["single"], name="FLUX.1-dev")
    experts = {_named(name, number): expert for number in sorted(numbers)}
    info = BankInfo(base=base, experts=experts, licence=what.licence)
    found = {ours: (file.shape(key), file.dtype(key)) for ours, key in names.items()}
    check_tensors(info, found, file.path.name)
    return Bank(info, Renamed(file, names))


def _shape(file: SafeFile) -> tuple[int, int]:
    """Rank and width, from the first down matrix; all others are held against them."""
    shape = next((file.shape(key) for key in file if key.endswith("down.weight")), ())
    if len(shape) != 2:
        raise BankError(f"{file.path.name} has no down matrix of two sides: download it again.")
    return shape


def _kind(path: Path, kind: str) -> Kind:
    if kind != "auto":
        if kind not in KINDS:
            raise BankError(f"The kind is {kind[:80]!r}, expected auto or one of {', '.join(KINDS)}.")
        return KINDS[kind]
    for word, what in KINDS.items():
        if word in path.stem.lower():
            return what
    raise BankError(
        f"{path.name} does not say what it is for, expected a name with one of {', '.join(KINDS)}: import it with "
        f"CoLoGen Import Experts, or cologen bank import, and choose a kind."
    )


def _named(name: str, number: int) -> str:
    return f"{name}_{number + 1}" if number else name
