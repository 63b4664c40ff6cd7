"""Experts as PEFT adapters, one folder each, and back.

Two spellings: diffusers' FluxTransformer2DModel, one adapter a projection, and Black Forest Labs' (our own FLUX, the
host's), where q, k and v are rows of one layer: there an adapter is the expert's pairs in blocks, zeros between them.
An adapter bends every image token, an expert only a source's; that difference no file can carry. Routers stay behind.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..bank import Bank
from ..bank_info import BankError, BankInfo, decode, encode
from ..bank_shapes import check_tensors, expected_shapes
from ..bank_work import split
from ..renamed import Renamed
from ..safe_file import SafeFile
from ..strict import short
from ..writer import write
from . import lora

WEIGHTS, CONFIG, OURS = "adapter_model.safetensors", "adapter_config.json", "cologen.json"
PREFIX = "base_model.model."
MLP = 4
"""FLUX.1's MLP is so many times as wide as the model."""


class Layer(NamedTuple):
    """A linear layer that an expert bends."""

    module: str
    targets: tuple[str, ...]
    """Rows of its output, in order; a target that the expert lacks leaves its rows alone."""
    inputs: int
    outputs: int
    """Both in widths of the model."""


def diffusers_layers(block: str) -> list[Layer]:
    kind, index = block.split(".")
    single = kind == "single_blocks"
    stem = f"{'single_' if single else ''}transformer_blocks.{index}"
    out = Layer(f"{stem}.proj_out", ("out",), 1 + MLP, 1) if single else Layer(f"{stem}.attn.to_out.0", ("out",), 1, 1)
    return [*(Layer(f"{stem}.attn.to_{target}", (target,), 1, 1) for target in "qkv"), out]


def flux_layers(block: str) -> list[Layer]:
    if block.startswith("single"):
        return [Layer(f"{block}.linear1", ("q", "k", "v"), 1, 3 + MLP), Layer(f"{block}.linear2", ("out",), 1 + MLP, 1)]
    return [Layer(f"{block}.img_attn.qkv", ("q", "k", "v"), 1, 3), Layer(f"{block}.img_attn.proj", ("out",), 1, 1)]


SPELLINGS: dict[str, Callable[[str], list[Layer]]] = {"diffusers": diffusers_layers, "flux": flux_layers}


def export(bank: Bank, folder: Path, spelling: str = "diffusers") -> list[Path]:
    """Writes folder/EXPERT for each expert of the bank."""
    written = []
    for name, expert in bank.info.experts.items():
        if "proj" in expert.targets:
            raise BankError(
                f"Expert {name} reads what the output projection made, which no PEFT adapter does: export the others "
                f"(cologen bank drop {name}), or share it as a bank."
            )
    for name in bank.info.experts:
        target = folder / name
        if target.exists():
            raise BankError(f"{target} is there already, expected a new folder: delete it or choose another.")
    for name in bank.info.experts:
        written.append(_export_one(bank, name, folder / name, spelling))
    return written


def _export_one(bank: Bank, name: str, folder: Path, spelling: str) -> Path:
    from peft import LoraConfig

    expert, tensors, ranks = bank.info.experts[name], {}, {}
    for block in bank.info.base.blocks():
        pairs = _plain_pairs(bank, name, block)
        for layer in SPELLINGS[spelling](block):
            if any(target in pairs for target in layer.targets):
                stem = f"{PREFIX}{layer.module}"
                tensors[f"{stem}.lora_A.weight"], tensors[f"{stem}.lora_B.weight"] = adapter(pairs, layer)
                ranks[layer.module] = len(tensors[f"{stem}.lora_A.weight"])
    common = max(ranks.values())
    others = {module: rank for module, rank in ranks.items() if rank != common}
    scale = expert.alpha / expert.rank
    config = LoraConfig(
        r=common,
        lora_alpha=scale * common,
        rank_pattern=others,
        alpha_pattern={module: scale * rank for module, rank in others.items()},
        target_modules=sorted(ranks),
        inference_mode=True,
        base_model_name_or_path=bank.info.base.name,
    )
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    part = split(bank, name).info
    info = replace(part, experts={name: replace(expert, shared="", scaled=False)}, routers={})
    (folder / OURS).write_text(json.dumps({"spelling": spelling, "bank": encode(info)}), encoding="utf-8")
    write(folder / WEIGHTS, tensors, {"format": "pt"})
    return folder


def _plain_pairs(bank: Bank, name: str, block: str) -> dict[str, tuple[Tensor, Tensor]]:
    """down and up by target, without scales of their own."""
    pairs = {target: (pair.down, pair.up) for target, pair in bank.expert(name, block).items()}
    if not bank.info.experts[name].scaled:
        return pairs
    scales = {target: bank.tensors[f"experts.{name}.{block}.{target}.scale"] for target in pairs}
    return {target: (down.bfloat16(), (up.float() * scales[target]).bfloat16()) for target, (down, up) in pairs.items()}


def adapter(pairs: Mapping[str, tuple[Tensor, Tensor]], layer: Layer) -> tuple[Tensor, Tensor]:
    """A layer's A and B: the pairs of its targets one below the other, each on rows of its own."""
    held = [target for target in layer.targets if target in pairs]
    rank, dim = pairs[held[0]][0].shape
    down = pairs[held[0]][0].new_zeros(len(held) * rank, layer.inputs * dim)
    up = down.new_zeros(layer.outputs * dim, len(held) * rank)
    for i, target in enumerate(held):
        ranks, row = slice(i * rank, (i + 1) * rank), layer.targets.index(target) * dim
        down[ranks, :dim], up[row : row + dim, ranks] = pairs[target]
    return down, up


def read(folder: Path, name: str = "", kind: str = "auto") -> Bank:
    """An adapter folder as a bank: exactly if we wrote it, else as a LoRA."""
    if not (folder / WEIGHTS).is_file():
        raise BankError(f"{short(folder)} is a folder without {WEIGHTS}: name a bank's file or a PEFT adapter's folder.")
    file = SafeFile(folder / WEIGHTS)
    if (folder / OURS).is_file():
        return _read_ours(folder, file)
    config = _json(folder / CONFIG)
    if config.get("use_dora"):
        raise BankError(f"{folder.name} is a DoRA, which divides by the base's weights, expected a LoRA.")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not all(isinstance(value, (int, float)) and value > 0 for value in (rank, alpha)):
        raise BankError(
            f"{folder.name}/{CONFIG} has r {str(rank)[:20]} and lora_alpha {str(alpha)[:20]}, expected numbers."
        )
    if config.get("rank_pattern") or config.get("alpha_pattern") or config.get("use_rslora"):
        raise BankError(f"{folder.name} gives its layers ranks or scales of their own, expected one of each.")
    return lora.read(file, name or folder.name, kind, alpha)


def _read_ours(folder: Path, file: SafeFile) -> Bank:
    note = _json(folder / OURS)
    if note.get("spelling") not in SPELLINGS or not isinstance(note.get("bank"), str):
        raise BankError(f"{folder.name}/{OURS} is not as we wrote it: delete it, and the folder is read as a LoRA.")
    info = decode(note["bank"], f"{folder.name}/{OURS}")
    (name,), spelling = info.experts, SPELLINGS[note["spelling"]]
    names = {key: _theirs(key, spelling) for key in expected_shapes(info)}
    for theirs in set(names.values()) - set(file):
        raise BankError(f"{folder.name} lacks the tensor {theirs}: export it again.")
    bank = Bank(info, Renamed(file, names, lambda key, tensor: _cut(info, name, spelling, key, tensor)))
    found = {key: (tuple(bank.tensors[key].shape), file.dtype(theirs)) for key, theirs in names.items()}
    check_tensors(info, found, folder.name)
    return bank


def _theirs(key: str, spelling: Callable[[str], list[Layer]]) -> str:
    _, _, kind, index, target, part = key.split(".")
    layer = next(layer for layer in spelling(f"{kind}.{index}") if target in layer.targets)
    return f"{PREFIX}{layer.module}.lora_{'A' if part == 'down' else 'B'}.weight"


def _cut(info: BankInfo, name: str, spelling: Callable[[str], list[Layer]], key: str, tensor: Tensor) -> Tensor:
    """One pair's matrix out of a layer's."""
    _, _, kind, index, target, part = key.split(".")
    expert, dim = info.experts[name], info.base.hidden_size
    layer = next(layer for layer in spelling(f"{kind}.{index}") if target in layer.targets)
    held = [one for one in layer.targets if expert.targets.get(one) in ("all", kind.removesuffix("_blocks"))]
    i, row = held.index(target), layer.targets.index(target)
    ranks = slice(i * expert.rank, (i + 1) * expert.rank)
    return tensor[ranks, :dim] if part == "down" else tensor[row * dim : (row + 1) * dim, ranks]


def _json(path: Path) -> Mapping:
    try:
        if path.stat().st_size > 1 << 20:
            raise ValueError("it is too long")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BankError(f"{path.parent.name}/{path.name} cannot be read ({error}): export the adapter again.") from None
    if not isinstance(data, dict):
        raise BankError(f"{path.parent.name}/{path.name} holds no object: export the adapter again.")
    return data
