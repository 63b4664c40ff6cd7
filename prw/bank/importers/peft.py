"""Experts as PEFT adapters, one folder each, and back.

Two spellings: diffusers' models, one adapter a projection, and Black Forest Labs' (our own FLUX, the host's), where q,
k and v are rows of one layer, as in single blocks of diffusers' FLUX.2: there an adapter is the expert's pairs in blocks,
zeros between them.
An adapter changes every image token, an expert only a source's; that difference no file can carry. Routers are left out.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor

from ...config import BankInfo
from ...files.errors import BankError, FileError
from ...files.lazy_tensors import Renamed
from ...files.regular_file import read_regular_text
from ...files.safe_file import SafeFile, check_tensors
from ...files.safetensors_writer import write_safetensors
from ...files.validate import MAX_NUMBER, shorten
from ...flux.families import FAMILIES, FLUX2, Family
from ..bank import Bank, require_low_rank
from ..compress import wide_dtype
from ..info import decode_info, encode_info
from ..tree import flatten
from . import lora
from .find_base import AUTO
from .names import apply_name
from .unsupported_files import check_supported

WEIGHTS, CONFIG, NOTE = "adapter_model.safetensors", "adapter_config.json", "cologen.json"
PREFIX, DOWN, UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
MAX_CONFIG = 2**20
"""Bytes of an adapter's configuration."""
FUSED = ("q", "k", "v")
"""Rows of a layer that gives all three."""


class Layer(NamedTuple):
    """A linear layer that an expert changes."""

    module: str
    targets: tuple[str, ...]
    """Rows of its output, in order; a target that the expert lacks leaves its rows alone."""
    inputs: int
    outputs: int
    """Widths of its input and output, as multiples of the model's hidden size."""


def diffusers_layers(block: str, family: Family) -> list[Layer]:
    kind, index = block.split(".")
    if kind == "double_blocks":
        attention = f"transformer_blocks.{index}.attn"
        out = Layer(f"{attention}.to_out.0", ("out",), 1, 1)
    else:
        stem = f"single_transformer_blocks.{index}"
        attention = f"{stem}.attn"
        if family is FLUX2:
            return make_single_layers(f"{attention}.to_qkv_mlp_proj", f"{attention}.to_out", family)
        out = Layer(f"{stem}.proj_out", ("out",), 1 + family.mlp_width, 1)
    return [*(Layer(f"{attention}.to_{target}", (target,), 1, 1) for target in FUSED), out]


def flux_layers(block: str, family: Family) -> list[Layer]:
    if block.startswith("single"):
        return make_single_layers(f"{block}.linear1", f"{block}.linear2", family)
    return [Layer(f"{block}.img_attn.qkv", FUSED, 1, 3), Layer(f"{block}.img_attn.proj", ("out",), 1, 1)]


def make_single_layers(first: str, last: str, family: Family) -> list[Layer]:
    """Makes a single block's two layers: attention's part is followed by the MLP's."""
    return [Layer(first, FUSED, 1, 3 + family.mlp_rows), Layer(last, ("out",), 1 + family.mlp_width, 1)]


SPELLINGS: dict[str, Callable[[str, Family], list[Layer]]] = {"diffusers": diffusers_layers, "flux": flux_layers}


class Cut(NamedTuple):
    """The part of an adapter's tensor in which one of an expert's matrices lies."""

    key: str
    rows: slice
    columns: slice


def plan_layout(info: BankInfo, name: str, spelling: str) -> tuple[dict[str, tuple[int, int]], dict[str, Cut]]:
    """Plans the shapes of an adapter's tensors, and by our names where each matrix lies in them;
    between them are zeros."""
    expert, dim, family = info.experts[name], info.base.hidden_size, FAMILIES[info.base.family]
    shapes, cuts = {}, {}
    for block in info.base.blocks():
        for layer in SPELLINGS[spelling](block, family):
            targets = [target for target in layer.targets if target in expert.targets_in(block)]
            if not targets:
                continue
            down, up = (f"{PREFIX}{layer.module}{part}" for part in (DOWN, UP))
            rank = len(targets) * expert.rank
            shapes[down], shapes[up] = (rank, layer.inputs * dim), (layer.outputs * dim, rank)
            for i, target in enumerate(targets):
                ranks, row = slice(i * expert.rank, (i + 1) * expert.rank), layer.targets.index(target) * dim
                cuts[f"experts.{name}.{block}.{target}.down"] = Cut(down, ranks, slice(0, dim))
                cuts[f"experts.{name}.{block}.{target}.up"] = Cut(up, slice(row, row + dim), ranks)
    return shapes, cuts


def export_adapters(bank: Bank, folder: Path, spelling: str = "diffusers") -> list[Path]:
    """Writes folder/EXPERT for each expert of the bank, with what its parents add."""
    require_low_rank(bank)
    bank = flatten(bank)
    for name, expert in bank.info.experts.items():
        if "proj" in expert.targets:
            raise BankError(
                f"Expert {name} reads what the output projection made, which no PEFT adapter does: export the others "
                f"(cologen bank drop {name}), or share it as a bank."
            )
    for name in bank.info.experts:
        target = folder / name
        if target.exists():
            raise FileError(f"{target} is there already, expected a new folder: delete it or choose another.")
    return [_export_one(bank, name, folder / name, spelling) for name in bank.info.experts]


def _export_one(bank: Bank, name: str, folder: Path, spelling: str) -> Path:
    try:
        from peft import LoraConfig
    except ImportError:
        raise FileError("Exporting takes peft, which is not installed: pip install peft.") from None

    shapes, cuts = plan_layout(bank.info, name, spelling)
    ranks = {
        key.removeprefix(PREFIX).removesuffix(DOWN): rows for key, (rows, _) in shapes.items() if key.endswith(DOWN)
    }
    common = max(ranks.values())
    others = {module: rank for module, rank in ranks.items() if rank != common}
    expert = bank.info.experts[name]
    scale = expert.alpha / expert.rank
    config = LoraConfig(
        r=common,
        lora_alpha=scale * common,  # pyrefly: ignore[bad-argument-type]
        rank_pattern=others,
        alpha_pattern={module: scale * rank for module, rank in others.items()},
        target_modules=sorted(ranks),
        inference_mode=True,
        base_model_name_or_path=bank.info.base.name,
    )
    info = replace(bank.info, experts={name: replace(expert, shared="", scaled=False)}, routers={})
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=folder.parent) as temporary:  # the folder is there whole or not at all
        unfinished = Path(temporary) / name
        config.save_pretrained(str(unfinished))
        (unfinished / NOTE).write_text(json.dumps({"spelling": spelling, "bank": encode_info(info)}), encoding="utf-8")
        write_safetensors(unfinished / WEIGHTS, _build_adapter(bank, name, shapes, cuts), {"format": "pt"})
        return unfinished.rename(folder)


def _build_adapter(
    bank: Bank, name: str, shapes: Mapping[str, tuple[int, int]], cuts: Mapping[str, Cut]
) -> dict[str, Tensor]:
    parts: dict[str, list[tuple[Cut, Tensor]]] = {}
    for block in bank.info.base.blocks():
        for target, pair in bank.expert(name, block).items():
            place = f"{block}.{target}"
            up = (pair.up.float() * bank.pair_scale(name, place)).to(wide_dtype(pair.up))
            for part, tensor in (("down", pair.down.to(wide_dtype(pair.down))), ("up", up)):
                cut = cuts[f"experts.{name}.{place}.{part}"]
                parts.setdefault(cut.key, []).append((cut, tensor))
    tensors = {}
    for key, pieces in parts.items():
        dtype = reduce(torch.promote_types, (tensor.dtype for _, tensor in pieces))
        tensors[key] = torch.zeros(shapes[key], dtype=dtype)
        for cut, tensor in pieces:
            tensors[key][cut.rows, cut.columns] = tensor
    return tensors


def read(folder: Path, name: str = "", kind: str = "auto", family: str = AUTO) -> Bank:
    """Reads an adapter folder as a bank: exactly if we wrote it, else as a LoRA."""
    if not (folder / WEIGHTS).is_file():
        raise FileError(
            f"{shorten(folder)} is a folder without {WEIGHTS}: name a bank's file or a PEFT adapter's folder."
        )
    file = SafeFile(folder / WEIGHTS, folder.absolute().name)
    if (folder / NOTE).is_file():
        return apply_name(_read_ours(folder, file), name, kind, family)
    check_supported(file, file.name)
    config = _read_json(folder / CONFIG)
    if config.get("use_dora"):
        raise FileError(f"{file.name} is a DoRA, which divides by the base's weights, expected a LoRA: choose another.")
    return lora.read(file, name or file.name, kind, family, _read_scale(config, file.name))


def _read_scale(config: Mapping, name: str) -> float:
    """Reads alpha / rank of an adapter's layers, the same in all."""
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not (_is_positive(rank) and _is_positive(alpha)):
        raise FileError(f"{name}/{CONFIG} has r {shorten(rank)} and lora_alpha {shorten(alpha)}, expected numbers.")
    ranks, alphas = (config.get(key) or {} for key in ("rank_pattern", "alpha_pattern"))
    is_alike = isinstance(ranks, dict) and isinstance(alphas, dict) and ranks.keys() == alphas.keys()
    pairs = [(alphas[layer], ranks[layer]) for layer in ranks] if is_alike else []
    is_alike = is_alike and all(
        _is_positive(a) and _is_positive(r) and math.isclose(a / r, alpha / rank, rel_tol=1e-6) for a, r in pairs
    )
    if config.get("use_rslora") or not is_alike:
        raise FileError(f"{name} gives its layers ranks or scales of their own, expected one scale for all.")
    return alpha / rank


def _read_ours(folder: Path, file: SafeFile) -> Bank:
    """Reads an adapter that `export_adapters` wrote, which says how in a note."""
    note, title = _read_json(folder / NOTE), f"{file.name}/{NOTE}"
    spelling, text = note.get("spelling"), note.get("bank")
    if not isinstance(text, str) or spelling not in list(SPELLINGS):
        raise FileError(f"{title} is not as we wrote it: delete it, and the folder is read as a LoRA.")
    info = decode_info(text, title)
    one = next(iter(info.experts.values())) if len(info.experts) == 1 and not info.routers else None
    if one is None or "proj" in one.targets or one.shared or one.scaled or one.parent:
        raise FileError(
            f"{title} names {len(info.experts)} experts and {len(info.routers)} routers, expected one expert as an adapter "
            f"can hold it: delete it, and the folder is read as a LoRA."
        )
    shapes, cuts = plan_layout(info, next(iter(info.experts)), spelling)
    check_tensors(file, shapes)
    their_keys = {key: cut.key for key, cut in cuts.items()}
    return Bank(info, Renamed(file, their_keys, lambda key, tensor: tensor[cuts[key].rows, cuts[key].columns]))


def _is_positive(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and 0 < value <= MAX_NUMBER


def _read_json(path: Path) -> Mapping:
    try:
        data = json.loads(read_regular_text(path, MAX_CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(
            f"{path.parent.name}/{path.name} cannot be read ({shorten(error)}): export the adapter again."
        ) from None
    if not isinstance(data, dict):
        raise FileError(f"{path.parent.name}/{path.name} holds no object: export the adapter again.")
    return data
