"""Plain LoRAs of FLUX's attention as experts: what they do to an image token's q, k, v and output, a source gets.

Names are diffusers' (`transformer_blocks.0.attn.to_k`, PEFT's own prefix allowed) or Black Forest Labs', in which q, k
and v are one matrix (`double_blocks.0.img_attn.qkv`, `single_blocks.0.linear1`; kohya writes underscores). FLUX.2's
single blocks have one matrix in both (`single_transformer_blocks.0.attn.to_qkv_mlp_proj`).
"""

import math
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...config import BankInfo, ExpertInfo
from ...files.errors import FileError
from ...files.lazy_tensors import Merged, Renamed
from ...files.safe_file import FLOATS, SafeFile
from ...files.validate import check_choice, check_range, shorten
from ..bank import Bank
from ..shapes import list_shapes, parse_place
from .find_base import AUTO, find_base
from .matrices import add_once, check_matrix
from .names import make_expert_name

PREFIX = r"(?:base_model\.model\.|transformer\.|diffusion_model\.|lora_unet_)*"
PART = r"\.(?:lora_)?(?P<part>A|B|down|up)(?:\.default)?\.weight"
SPLIT = re.compile(
    PREFIX + r"(?P<single>single_)?transformer_blocks\.(?P<block>[0-9]{1,3})\.attn\.to_"
    r"(?P<target>[qkv]|out\.0|qkv_mlp_proj)" + PART
)
FUSED = re.compile(
    PREFIX + r"(?P<kind>double|single)_blocks[._](?P<block>[0-9]{1,3})[._]"
    r"(?P<layer>img_attn[._]qkv|linear1|img_attn[._]proj)" + PART
)
FUSED_TARGETS = ("q", "k", "v")
PARTS = {"A": "down", "B": "up", "down": "down", "up": "up"}
ALPHA = re.compile(r".*\.alpha")
NUMBERS = FLOATS.keys() | {"F64", "I64", "I32", "I16", "I8", "U8"}
"""Types that an alpha may have."""
PARTIAL = "partial"
MAX_PADDING = 16
"""How many times as large as its file an expert may be, whose pairs all get the rank of the largest one."""


class Module(NamedTuple):
    """A layer of FLUX that a LoRA changes: where its two matrices lie."""

    block: str
    targets: tuple[str, ...]
    """The projections that its output rows hold, in order."""
    keys: dict[str, str]
    """down and up -> tensor names."""


class Pair(NamedTuple):
    """One target's two matrices in a block."""

    keys: dict[str, str]
    rows: slice
    """The up matrix's rows that make this target."""
    rank: int
    dim: int
    scale: float


def recognize(names: Iterable[str]) -> bool:
    return any(SPLIT.fullmatch(name) or FUSED.fullmatch(name) for name in names)


def read(file: SafeFile, name: str = "", kind: str = "auto", family: str = AUTO, scale: float = 1.0) -> Bank:
    """Reads one expert; the kind "partial" takes what fits of a LoRA that changes other layers, too.

    `family` says which FLUX it is for, `scale` is alpha / rank of layers that have no alpha.
    """
    check_choice("kind", kind, ("auto", PARTIAL))
    modules, others = find_modules(file)
    if not modules:
        raise FileError(
            f"{file.name} changes no layer that an expert can, expected q, k, v or the attention's output of the image "
            f"side: choose another."
        )
    if others and kind != PARTIAL:
        raise FileError(
            f"{file.name} also changes {len(others)} tensors that no expert can ({shorten(others[0])}), expected q, k, "
            f"v and the attention's output of the image side alone: choose the kind {PARTIAL} to take only those."
        )
    pairs = _find_pairs(file, modules, kind == PARTIAL, scale)
    dim = next(iter(pairs.values())).dim
    rank, scales = max(pair.rank for pair in pairs.values()), {pair.scale for pair in pairs.values()}
    if rank * len(pairs) > MAX_PADDING * sum(pair.rank for pair in pairs.values()):
        raise FileError(
            f"{file.name} has pairs of rank {rank} beside {min(pair.rank for pair in pairs.values())}, expected ranks near one "
            f"another (an expert has the largest everywhere): give its layers one rank, as by resizing the LoRA."
        )
    scaled = len(scales) > 1
    alpha = rank * (1.0 if scaled else scales.pop())
    expert = ExpertInfo(rank=rank, alpha=alpha, targets=_find_targets(pairs), data=file.name, scaled=scaled)
    counts = {kind: _count_blocks(pairs, kind) for kind in ("double", "single")}
    info = BankInfo(find_base(file, dim, counts, family), {make_expert_name(name or file.path.stem): expert})
    return Bank(info, _make_tensors(file, pairs, info, rank))


def find_modules(file: SafeFile) -> tuple[dict[str, Module], list[str]]:
    """Finds the layers that can be an expert's, by what their tensors' names begin with,
    and the names of all other tensors."""
    modules: dict[str, Module] = {}
    others = []
    for key in file:
        if match := SPLIT.fullmatch(key):
            kind, target = "single" if match["single"] else "double", match["target"].removesuffix(".0")
            targets = FUSED_TARGETS if target.startswith("qkv") else (target,)
        elif match := FUSED.fullmatch(key):
            kind, targets = match["kind"], ("out",) if match["layer"].endswith("proj") else FUSED_TARGETS
        else:
            others += [] if ALPHA.fullmatch(key) else [key]
            continue
        stem = key[: match.start("part")].removesuffix("lora_").rstrip(".")
        module = modules.setdefault(stem, Module(f"{kind}_blocks.{int(match['block'])}", targets, {}))
        add_once(module.keys, PARTS[match["part"]], key, file)
    for stem, module in modules.items():
        if module.keys.keys() != {"down", "up"}:
            raise FileError(f"{file.name} has only half of {shorten(stem)}: download or save it again.")
    _check_alphas(file, modules, others)
    return modules, others


def _check_alphas(file: SafeFile, modules: Mapping[str, Module], others: Iterable[str]) -> None:
    """Raises for an alpha without its layer: a layer under another name would get a scale that is not its own."""
    known = {*modules, *(name[:end] for name in others for end in _find_dots(name))}
    for key in file:
        if ALPHA.fullmatch(key) and key.removesuffix(".alpha") not in known:
            raise FileError(
                f"{file.name} has {shorten(key)} without the layer that it belongs to: download or save it again."
            )


def _find_dots(name: str) -> list[int]:
    return [i for i, letter in enumerate(name) if letter == "."]


def _find_pairs(file: SafeFile, modules: dict[str, Module], partly: bool, scale: float) -> dict[str, Pair]:
    pairs, places = {}, {}
    for stem, (block, targets, keys) in modules.items():
        (rank, dim), up = check_matrix(file, keys["down"]), check_matrix(file, keys["up"])
        rows, fused = up[0], len(targets) > 1
        if up[1] != rank or rows < dim * len(targets) or (rows > dim and not fused):
            raise FileError(
                f"{file.name}: {shorten(stem)} has shapes {(rank, dim)} and {up}, which do not fit together: download or "
                f"save it again."
            )
        if rows > 3 * dim and not partly and file[keys["up"]][3 * dim :].any():
            raise FileError(
                f"{file.name} also changes the MLP in {shorten(stem)}, which no expert can: choose the kind {PARTIAL} "
                f"to take only what it does to q, k and v."
            )
        module_scale = _read_scale(file, f"{stem}.alpha", rank, scale)
        for i, target in enumerate(targets):
            add_once(places, f"{block}.{target}", keys["down"], file)
            pairs[f"{block}.{target}"] = Pair(keys, slice(i * dim, (i + 1) * dim), rank, dim, module_scale)
    if len({pair.dim for pair in pairs.values()}) != 1:
        raise FileError(f"{file.name} has layers of different widths, expected a LoRA of FLUX: choose another.")
    return pairs


def _read_scale(file: SafeFile, key: str, rank: int, scale: float) -> float:
    """Reads a layer's alpha / rank, `scale` if it has no alpha."""
    if key not in file:
        return scale
    if math.prod(file.shape(key)) != 1 or file.dtype(key) not in NUMBERS:
        raise FileError(f"{file.name}: {shorten(key)} is no number: download or save it again.")
    alpha = float(file[key].double())
    check_range(shorten(key), alpha)
    return alpha / rank


def _count_blocks(pairs: dict[str, Pair], kind: str) -> int:
    return max((int(place.split(".")[1]) + 1 for place in pairs if place.startswith(kind)), default=0)


def _find_targets(pairs: dict[str, Pair]) -> dict[str, str]:
    kinds: dict[str, set[str]] = {}
    for place in pairs:
        kinds.setdefault(place.rsplit(".", 1)[1], set()).add(place.split("_")[0])
    return {target: "all" if len(where) == 2 else where.pop() for target, where in sorted(kinds.items())}


def _make_tensors(file: SafeFile, pairs: dict[str, Pair], info: BankInfo, rank: int) -> Mapping[str, Tensor]:
    """Makes the expert's tensors: cut out of the file, zeros where the LoRA has none,
    and scales where it has several."""
    zero = torch.zeros((), dtype=file[next(iter(pairs.values())).keys["up"]].dtype)
    their_keys: dict[str, str] = {}
    added: dict[str, Tensor] = {}
    for key, shape in list_shapes(info).items():
        part, pair = key.rsplit(".", 1)[1], pairs.get(parse_place(key))
        if part == "scale":
            added[key] = torch.tensor(pair.scale if pair else 1.0)
        elif pair is None:
            added[key] = zero.expand(shape)
        else:
            their_keys[key] = pair.keys[part]
    return Merged(Renamed(file, their_keys, partial(_cut_rows, pairs, rank)), added)


def _cut_rows(pairs: dict[str, Pair], rank: int, key: str, tensor: Tensor) -> Tensor:
    """Cuts a target's rows out of a matrix, and fills it up to the expert's rank with zeros."""
    part, pair = key.rsplit(".", 1)[1], pairs[parse_place(key)]
    tensor = tensor if part == "down" else tensor[pair.rows]
    missing = rank - pair.rank
    return F.pad(tensor, (0, 0, 0, missing) if part == "down" else (0, missing)) if missing else tensor
