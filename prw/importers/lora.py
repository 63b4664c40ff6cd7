"""Plain LoRAs of FLUX's attention as experts: what they do to an image token's q, k, v and output, a source gets.

Names are diffusers' (`transformer_blocks.0.attn.to_k`, PEFT's own prefix allowed) or Black Forest Labs', in which q, k
and v are one matrix (`double_blocks.0.img_attn.qkv`, `single_blocks.0.linear1`; kohya writes underscores).
"""

import re
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bank import Bank
from ..bank_info import BankError, BankInfo, ExpertInfo
from ..bank_shapes import DTYPES, expected_shapes
from ..config import Base
from ..renamed import Renamed
from ..safe_file import SafeFile
from .names import expert_name

PREFIX = r"(?:base_model\.model\.|transformer\.|diffusion_model\.|lora_unet_)*"
PART = r"\.(?:lora_)?(?P<part>A|B|down|up)(?:\.default)?\.weight"
SPLIT = re.compile(
    PREFIX + r"(?P<single>single_)?transformer_blocks\.(?P<block>\d{1,3})\.attn\.to_(?P<target>[qkv]|out\.0)" + PART
)
FUSED = re.compile(
    PREFIX + r"(?P<kind>double|single)_blocks[._](?P<block>\d{1,3})[._]"
    r"(?P<layer>img_attn[._]qkv|linear1|img_attn[._]proj)" + PART
)
PARTS = {"A": "down", "B": "up", "down": "down", "up": "up"}
ALPHA = re.compile(r".*\.alpha")
ANY = re.compile(r".*\.(?:lora_)?(?:A|B|down|up)(?:\.default)?\.weight")
PARTIAL = "partial"


class Module(NamedTuple):
    """A layer of FLUX that a LoRA changes: where its two matrices lie."""

    block: str
    targets: tuple[str, ...]
    """What its output rows are, in order."""
    keys: dict[str, str]
    """down and up -> tensor names."""
    scale: float


def claims(names: Iterable[str]) -> bool:
    return any(SPLIT.fullmatch(name) or FUSED.fullmatch(name) for name in names)


def read(file: SafeFile, name: str = "", kind: str = "auto", alpha: float | None = None) -> Bank:
    """`kind` "partial" takes what fits of a LoRA that changes other layers, too; `alpha` where no tensor says it."""
    modules, others = modules_of(file, alpha)
    if others and kind != PARTIAL:
        raise BankError(
            f"{file.path.name} also changes {len(others)} tensors that no expert can ({others[0][:80]}), expected q, k, "
            f"v and the attention's output of the image side alone: choose the kind {PARTIAL} to take only those."
        )
    pairs = _pairs(file, modules, kind == PARTIAL)
    dim = next(iter(pairs.values())).dim
    counts = {kind: _count(pairs, kind) for kind in ("double", "single")}
    base = Base(hidden_size=dim, double_blocks=counts["double"], single_blocks=counts["single"], name="FLUX.1")
    rank, scales = max(pair.rank for pair in pairs.values()), {pair.scale for pair in pairs.values()}
    common = scales.pop() if len(scales) == 1 else 1.0
    name = expert_name(name or file.path.stem)
    expert = ExpertInfo(rank=rank, alpha=common * rank, targets=_targets(pairs), data=file.path.name)
    info = BankInfo(base=base, experts={name: expert})
    names = {
        key: pairs[_place(key)].keys[key.rsplit(".", 1)[1]] if _place(key) in pairs else next(iter(file))
        for key in expected_shapes(info)
    }
    return Bank(info, Renamed(file, names, partial(_tensor, pairs, rank, dim, common)))


class Pair(NamedTuple):
    """One target's two matrices in a block."""

    keys: dict[str, str]
    rows: slice
    """Of the up matrix."""
    rank: int
    dim: int
    scale: float


def modules_of(file: SafeFile, alpha: float | None) -> tuple[dict[str, Module], list[str]]:
    """The layers that can be an expert's, and the names of all other tensors."""
    found: dict[str, dict] = {}
    others = []
    for key in file:
        if match := SPLIT.fullmatch(key):
            kind, targets = "single" if match["single"] else "double", (match["target"].removesuffix(".0"),)
        elif match := FUSED.fullmatch(key):
            kind, targets = match["kind"], ("out",) if match["layer"].endswith("proj") else ("q", "k", "v")
        elif not ALPHA.fullmatch(key):
            others.append(key)
            continue
        if match:
            stem = key[: match.start("part")].removesuffix("lora_").rstrip(".")
            entry = found.setdefault(
                stem, {"block": f"{kind}_blocks.{int(match['block'])}", "targets": targets, "keys": {}}
            )
            entry["keys"][PARTS[match["part"]]] = key
    for stem, entry in found.items():
        if entry["keys"].keys() != {"down", "up"}:
            raise BankError(f"{file.path.name} has only half of {stem[:80]}: download or save it again.")
        rank = file.shape(entry["keys"]["down"])[0]
        entry["scale"] = _alpha(file, f"{stem}.alpha", alpha, rank) / rank
    return {stem: Module(**entry) for stem, entry in found.items()}, others


def _alpha(file: SafeFile, key: str, alpha: float | None, rank: int) -> float:
    if key not in file:
        return rank if alpha is None else alpha
    value = file[key]
    if value.numel() != 1 or not torch.isfinite(value.float()).all():
        raise BankError(f"{file.path.name}: {key[:80]} is no number: download or save it again.")
    return float(value)


def _pairs(file: SafeFile, modules: dict[str, Module], partly: bool) -> dict[str, Pair]:
    pairs = {}
    for stem, module in modules.items():
        (rank, dim), up = _matrix(file, module.keys["down"]), _matrix(file, module.keys["up"])
        rows, fused = up[0], len(module.targets) > 1
        if up[1] != rank or rows < dim * len(module.targets) or (rows > dim and not fused):
            raise BankError(
                f"{file.path.name}: {stem[:80]} has shapes {(rank, dim)} and {up}, which do not fit together."
            )
        if rows > 3 * dim and not partly and file[module.keys["up"]][3 * dim :].any():
            raise BankError(
                f"{file.path.name} also changes the MLP in {stem[:80]}, which no expert can: choose the kind {PARTIAL} "
                f"to take only what it does to q, k and v."
            )
        for i, target in enumerate(module.targets):
            pairs[f"{module.block}.{target}"] = Pair(
                module.keys, slice(i * dim, (i + 1) * dim), rank, dim, module.scale
            )
    if len({pair.dim for pair in pairs.values()}) != 1:
        raise BankError(f"{file.path.name} has layers of different widths, expected a LoRA of FLUX.1.")
    return pairs


def _matrix(file: SafeFile, key: str) -> tuple[int, int]:
    shape = file.shape(key)
    if len(shape) != 2 or 0 in shape or file.dtype(key) not in DTYPES:
        raise BankError(
            f"{file.path.name}: {key[:80]} is {file.dtype(key)} of shape {shape}, expected a matrix of numbers."
        )
    return shape


def _count(pairs: dict[str, Pair], kind: str) -> int:
    return max((int(place.split(".")[1]) + 1 for place in pairs if place.startswith(kind)), default=0)


def _targets(pairs: dict[str, Pair]) -> dict[str, str]:
    kinds: dict[str, set[str]] = {}
    for place in pairs:
        kinds.setdefault(place.rsplit(".", 1)[1], set()).add(place.split("_")[0])
    return {target: "all" if len(where) == 2 else where.pop() for target, where in sorted(kinds.items())}


def _place(key: str) -> str:
    """double_blocks.0.k of experts.NAME.double_blocks.0.k.down"""
    return key.split(".", 2)[2].rsplit(".", 1)[0]


def _tensor(pairs: dict[str, Pair], rank: int, dim: int, common: float, name: str, tensor: Tensor) -> Tensor:
    """A matrix cut out of a fused one, filled up to the expert's rank; zeros where the LoRA has none."""
    part, pair = name.rsplit(".", 1)[1], pairs.get(_place(name))
    if pair is None:
        return torch.zeros((rank, dim) if part == "down" else (dim, rank))
    if part == "down":
        return F.pad(tensor, (0, 0, 0, rank - pair.rank)) if pair.rank < rank else tensor
    tensor = tensor[pair.rows]
    tensor = tensor if pair.scale == common else tensor * (pair.scale / common)
    return F.pad(tensor, (0, rank - pair.rank)) if pair.rank < rank else tensor
