"""A concept file: a user's subject as vectors among the text's tokens, and a LoRA of FLUX's keys and values.

It is the result of image-specific context optimisation (Jin et al., ECCV 2024, arXiv 2412.04831): the concept stands
beside its class's noun, and the weights are the counterpart of to_k and to_v. Our choice for FLUX: vectors are learned
behind the text encoder, where no gradient has to pass it. Their place among FLUX.1's text tokens, all at position 0, is
free; on FLUX.2, whose text tokens have positions, they stay behind all, where they are trained.

    concept.tokens                                  (tokens, width)
    transformer.<layer>.<lora_A|lora_B>.weight      an ordinary LoRA in diffusers' names, which other loaders read, too
    transformer.<layer>.alpha
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..base_model import Base
from ..experts import LowRank
from ..files.errors import FileError
from ..files.file_metadata import FileMetadata
from ..files.safe_file import SafeFile, check_numbers, check_tensors, header_matches
from ..files.safetensors_writer import write_safetensors
from ..files.validate import check_choice, check_range
from .marked_prompt import MarkedTokens

TOKENS = "concept.tokens"
WEIGHTS = "transformer."
"""What the LoRA's names begin with."""
LAYERS = {
    "double": ("txt_attn.qkv", WEIGHTS + "transformer_blocks.{}.attn.add_{}_proj"),
    "single": ("linear1", WEIGHTS + "single_transformer_blocks.{}.attn.to_{}"),
}
"""By kind of block: the layer that makes k and v of text, and what diffusers calls its parts.
Single blocks make those of the picture by it, too."""
BLOCK_KINDS = {"text": ("double",), "all": ("double", "single")}
"""By the field `where`: kinds of blocks that the weights change."""
TARGETS = ("k", "v")
MARKER, HEADER_BYTES = re.compile(b"cologen-concept"), 1 << 12
"""The metadata's format, and how far into a file to look for it."""


@dataclass(frozen=True)
class ConceptInfo:
    """The metadata of a concept file."""

    base: Base = field(default_factory=Base)
    noun: str = ""
    """The class: a prompt names it, and the concept stands beside."""
    tokens: int = 2
    width: int = 4096
    """Length of a text vector."""
    rank: int = 16
    alpha: float = 16.0
    where: str = "all"
    iterations: int = 0
    licence: str = ""

    def __post_init__(self):
        for name, low, high in (("tokens", 1, 256), ("width", 1, 1 << 16), ("rank", 1, 16384)):
            check_range(name, getattr(self, name), low, high)
        check_range("alpha", self.alpha)
        check_choice("where", self.where, tuple(BLOCK_KINDS))


METADATA = FileMetadata(ConceptInfo, "cologen-concept", "concept", "CoLoGen Train Subject")


class LayerResidual(NamedTuple):
    """A low-rank residual of some of a layer's output rows."""

    rows: slice
    pair: LowRank


class Concept:
    """A subject: its vectors and its LoRA, with what the file says of them."""

    def __init__(self, info: ConceptInfo, tensors: Mapping[str, Tensor]):
        self.info, self.tensors = info, tensors

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Concept":
        file = SafeFile(path)
        info = METADATA.decode(file)
        shapes = {**list_shapes(info), **dict.fromkeys(list_alphas(info), ())}
        check_tensors(file, shapes)
        if any(file[name] != torch.tensor(float(info.alpha), dtype=file[name].dtype) for name in list_alphas(info)):
            raise FileError(f"{file.name} has another alpha than its metadata says ({info.alpha:g}): save it again.")
        tensors = {name: file[name] for name in list_shapes(info)}
        check_numbers(file.name, tensors)
        return cls(info, tensors)

    def save(self, path: str | os.PathLike) -> Path:
        return write_safetensors(path, {TOKENS: self.vectors, **self.make_lora()}, METADATA.encode(self.info))

    @property
    def vectors(self) -> Tensor:
        return self.tensors[TOKENS]

    def make_lora(self) -> dict[str, Tensor]:
        """Makes the weights as any LoRA loader takes them."""
        weights = {name: tensor for name, tensor in self.tensors.items() if name.startswith(WEIGHTS)}
        return weights | {name: torch.tensor(float(self.info.alpha)) for name in list_alphas(self.info)}


def looks_like_concept(path: str | os.PathLike) -> bool:
    return header_matches(path, MARKER, HEADER_BYTES)


def list_layers(info: ConceptInfo) -> Iterator[tuple[str, slice, str]]:
    """Yields for each pair of matrices FLUX's layer, the rows of it, and the name in the file."""
    dim = info.base.hidden_size
    for kind in BLOCK_KINDS[info.where]:
        layer, name = LAYERS[kind]
        for i, block in enumerate(info.base.blocks(kind)):
            for j, target in enumerate(TARGETS, start=1):  # q comes first
                yield f"{block}.{layer}", slice(j * dim, (j + 1) * dim), name.format(i, target)


def list_shapes(info: ConceptInfo) -> dict[str, tuple[int, ...]]:
    """Lists shapes of the learned tensors by their names."""
    dim = info.base.hidden_size
    shapes: dict[str, tuple[int, ...]] = {TOKENS: (info.tokens, info.width)}
    for _, _, name in list_layers(info):
        shapes |= {f"{name}.lora_A.weight": (info.rank, dim), f"{name}.lora_B.weight": (dim, info.rank)}
    return shapes


def list_alphas(info: ConceptInfo) -> list[str]:
    """Names of the alphas."""
    return [f"{name}.alpha" for _, _, name in list_layers(info)]


def make_residuals(info: ConceptInfo, tensors: Mapping[str, Tensor]) -> dict[str, list[LayerResidual]]:
    """Returns the residuals that the weights add to the outputs of FLUX's layers, by layer."""
    residuals: dict[str, list[LayerResidual]] = {}
    for layer, rows, name in list_layers(info):
        down, up = (tensors[f"{name}.lora_{part}.weight"] for part in "AB")
        residuals.setdefault(layer, []).append(LayerResidual(rows, LowRank(down, up, info.alpha / info.rank)))
    return residuals


def insert_vectors(text: Tensor, marked: MarkedTokens | None, vectors: Tensor) -> tuple[Tensor, MarkedTokens | None]:
    """Inserts vectors (tokens, width) or (batch, tokens, width) into text tokens (batch, tokens, width).

    They come before the marked noun, and count as part of it, so that a probe of the noun finds the concept, too; behind
    all where nothing is marked.
    """
    at = min(marked.noun) if marked else text.shape[1]
    inserted = vectors.to(text.device).expand(len(text), -1, -1)
    dtype = torch.promote_types(text.dtype, inserted.dtype)
    longer = torch.cat((text[:, :at], inserted.to(dtype), text[:, at:]), dim=1)
    if marked is None:
        return longer, None
    count = inserted.shape[1]
    noun = (*range(at, at + count), *(row + count for row in marked.noun))
    return longer, MarkedTokens(noun, marked.prompt_length + count)
