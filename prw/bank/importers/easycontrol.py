"""EasyControl's and OmniConsistency's files: one condition each, with the topology of our source stream.

Their condition tokens see only themselves, at timestep 0, through FLUX's image-side weights, as ours do. Beyond k and v
their LoRA changes q everywhere, and in double blocks what the output projection made of attention ("proj": it reads the
projection's own output). There is no alpha: the scale is 1. The condition gets the picture's own guidance, is a
square of 512 pixels, and lies over the target from the corner, or, as a subject, 64 tokens below.
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ...base_model import Base
from ...config import BankInfo, ExpertInfo
from ...files.errors import FileError
from ...files.lazy_tensors import Renamed
from ...files.safe_file import SafeFile, header_matches
from ...files.validate import check_choice, shorten
from ...flux.families import CHROMA, FLUX1
from ...source_format import SourceFormat
from ..bank import Bank
from .find_base import AUTO
from .matrices import add_once, check_matrix
from .names import make_expert_name

SIDE = 512
ALIGNED = SourceFormat(guidance="live", position="corner", side=SIDE, fit="stretch", hole="black")
BELOW = SourceFormat(guidance="live", position="below", side=SIDE, fit="pad", hole="black")
EASYCONTROL = "Apache-2.0 on the model page; for research purposes only, says the authors' README"
OMNICONSISTENCY = "see showlab/OmniConsistency"


class Kind(NamedTuple):
    """What a user must say of a file, for nothing in it does: its task and how its source is given."""

    task: str
    source_format: SourceFormat
    triggers: tuple[str, ...] = ()
    licence: str = EASYCONTROL


KINDS = {
    "canny": Kind("control", ALIGNED),
    "depth": Kind("control", ALIGNED),
    "hedsketch": Kind("control", ALIGNED),
    "pose": Kind("control", ALIGNED),
    "seg": Kind("control", ALIGNED),
    "inpainting": Kind("inpaint", ALIGNED),
    "subject": Kind("subject", BELOW, ("SKS",)),
    "ghibli": Kind("edit", ALIGNED, ("Ghibli Studio style, Charming hand-drawn anime-style illustration",)),
    "omniconsistency": Kind("edit", ALIGNED, licence=OMNICONSISTENCY),
    "spatial": Kind("control", ALIGNED, licence=""),
}
"""By a word in the file's name. "spatial" is anybody's own that is laid over the picture."""

KEY = re.compile(
    r"(?:transformer\.)?(single_)?transformer_blocks\.([0-9]{1,3})\.attn\.(?:processor\.)?"
    r"(cond_)?([qkv]|proj)_loras\.([0-9]{1,2})\.(down|up)\.weight"
)
MARKER, HEADER_BYTES = (
    re.compile(
        rb"transformer_blocks\.[0-9]{1,3}\.attn\.[\w.]{0,32}(?:[qkv]|proj)_loras\.[0-9]{1,2}\.(?:down|up)\.weight"
    ),
    1 << 16,
)
OTHER_RULES = ("seethrough3d", "seethrough_3d", "seethrough-3d")
"""In the name of a file, or of its folder: EasyControl's layout with another rule."""
TARGETS = {"q": "all", "k": "all", "v": "all", "proj": "double"}


def recognize(names: Iterable[str]) -> bool:
    return any(KEY.fullmatch(name) for name in names)


def looks_like_easycontrol(path: str | os.PathLike) -> bool:
    """Says whether a file's header names EasyControl's tensors."""
    return header_matches(path, MARKER, HEADER_BYTES)


class Place(NamedTuple):
    """Where a matrix belongs; as text, the name that the public trainer gives it."""

    number: int
    """The condition that the matrix is for, from 0; most files have one."""
    kind: str
    block: int
    target: str
    part: str

    def __str__(self) -> str:
        single = "single_" if self.kind == "single" else ""
        return f"{single}transformer_blocks.{self.block}.attn.processor.{self.target}_loras.{self.number}.{self.part}.weight"


def read(file: SafeFile, name: str = "", kind: str = "auto", family: str = AUTO) -> Bank:
    """Reads one expert for each condition of the file."""
    check_choice("family", family, (AUTO, FLUX1.label, CHROMA.label))
    if kind == AUTO:
        _check_rule(file)
    kind_info, name = _choose_kind(file.path, kind), make_expert_name(name or file.path.stem)
    keys = _find_places(file)
    counts = {kind: max((p.block + 1 for p in keys if p.kind == kind), default=0) for kind in ("double", "single")}
    if not counts["single"]:
        raise FileError(
            f"{file.name} is for a model without single blocks (as Omni-Effects' files for CogVideoX are), expected FLUX: choose "
            f"another."
        )
    numbers = sorted({place.number for place in keys})
    rank, dim = _check_complete(file, keys, numbers, counts)
    expert = ExpertInfo(
        rank=rank,
        alpha=rank,
        targets=TARGETS,
        task=kind_info.task,
        data=file.name,
        licence=kind_info.licence,
        triggers=kind_info.triggers,
        habits=kind_info.source_format,
    )
    base = Base(hidden_size=dim, double_blocks=counts["double"], single_blocks=counts["single"], name="FLUX.1-dev")
    if family == CHROMA.label:
        base = replace(base, name="Chroma", family=CHROMA.name)
    names = {number: f"{name}_{number + 1}" if number else name for number in numbers}
    info = BankInfo(base=base, experts={names[number]: expert for number in numbers}, licence=kind_info.licence)
    their_keys = {
        f"experts.{names[number]}.{kind}_blocks.{block}.{target}.{part}": key
        for (number, kind, block, target, part), key in keys.items()
    }
    return Bank(info, Renamed(file, their_keys))


def _find_places(file: SafeFile) -> dict[Place, str]:
    """Finds the keys of the file's matrices by where they belong."""
    keys: dict[Place, str] = {}
    for key in file:
        match = KEY.fullmatch(key)
        if match is None or (match[1] and match[4] == "proj"):
            raise FileError(
                f"{file.name} holds {shorten(key)} beside EasyControl's tensors: it is another kind of file, choose another."
            )
        single, block, _, target, number, part = match.groups()
        add_once(keys, Place(int(number), "single" if single else "double", int(block), target, part), key, file)
    return keys


def _check_complete(
    file: SafeFile, keys: dict[Place, str], numbers: list[int], counts: dict[str, int]
) -> tuple[int, int]:
    """Returns rank and width; raises if a matrix is missing or of another size."""
    for place in _list_places(numbers, counts):  # ends at the first gap, however much a file's names may claim
        if place not in keys:
            raise FileError(f"{file.name} lacks {place}: download it again.")
    rank, dim = check_matrix(file, keys[next(_list_places(numbers, counts))])
    for place, key in keys.items():
        shape = (rank, dim) if place.part == "down" else (dim, rank)
        if check_matrix(file, key) != shape:
            raise FileError(
                f"{file.name}: {shorten(key)} has shape {file.shape(key)}, expected {shape}: download it again."
            )
    return rank, dim


def _list_places(numbers: list[int], counts: dict[str, int]) -> Iterator[Place]:
    for number, (kind, count) in itertools.product(numbers, counts.items()):
        targets = [target for target, where in TARGETS.items() if where in ("all", kind)]
        for block, target, part in itertools.product(range(count), targets, ("down", "up")):
            yield Place(number, kind, block, target, part)


def _check_rule(file: SafeFile) -> None:
    """Raises where a file of these names may follow another rule; who chooses a kind has answered."""
    if any(word in part.lower() for part in file.path.parts[-2:] for word in OTHER_RULES):
        raise FileError(
            f"{file.name} is SeeThrough3D's, whose condition also reads the prompt's words for each thing in it, expected one "
            f"that sees itself alone: choose the kind spatial to use it without those words, a makeshift."
        )
    if any(match and match[3] for match in map(KEY.fullmatch, file)):
        raise FileError(
            f"{file.name} has the names of a fork of EasyControl (cond_q_loras), whose condition may read prompt or picture, "
            f"expected EasyControl's own: choose a kind if you know that it sees itself alone."
        )


def _choose_kind(path: Path, kind: str) -> Kind:
    check_choice("kind", kind, ("auto", *KINDS))
    words = re.findall("[a-z]+", path.stem.lower()) if kind == "auto" else [kind]
    matches = [kind_info for word, kind_info in KINDS.items() if word in words]
    if len(matches) != 1:
        raise FileError(
            f"{path.name} does not say what it is for, expected a name with one of {', '.join(KINDS)}: choose a "
            f"kind where you import it (Import Experts), or rename the file."
        )
    return matches[0]
