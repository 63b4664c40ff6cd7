"""A concept: one's own subject as vectors among the text's tokens and a LoRA of FLUX's keys and values, in one small file.

What image-specific context optimisation leaves (Jin et al., ECCV 2024, arXiv 2412.04831): the concept stands beside its
class's noun, and the weights are the counterpart of to_k and to_v. Our choice for FLUX: vectors are learned behind the
text encoder, where no gradient has to pass T5, and their place among the text's tokens, all at position 0, is free.

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
from ..files.file_metadata import Label
from ..files.safe_file import SafeFile, begins_with, check_tensors
from ..files.safetensors_writer import write
from ..files.validate import between, one_of
from .marked_prompt import Words

TOKENS = "concept.tokens"
WEIGHTS = "transformer."
"""What the LoRA's names begin with."""
LAYERS = {
    "double": ("txt_attn.qkv", WEIGHTS + "transformer_blocks.{}.attn.add_{}_proj"),
    "single": ("linear1", WEIGHTS + "single_transformer_blocks.{}.attn.to_{}"),
}
"""By kind of block: the layer that makes k and v of text, and what diffusers calls its parts. Single blocks make those
of the picture by it, too."""
WHERE = {"text": ("double",), "all": ("double", "single")}
"""Kinds of blocks that the weights may bend."""
TARGETS = ("k", "v")
MARK, LOOKED_AT = re.compile(b"cologen-concept"), 1 << 12
"""Bytes of a file; metadata comes first."""


@dataclass(frozen=True)
class ConceptInfo:
    base: Base = field(default_factory=Base)
    noun: str = ""
    """The class: a prompt names it, and the concept stands beside."""
    tokens: int = 2
    width: int = 4096
    """Numbers in a vector of text."""
    rank: int = 16
    alpha: float = 16.0
    where: str = "all"
    iterations: int = 0
    licence: str = ""

    def __post_init__(self):
        for name, low, high in (("tokens", 1, 256), ("width", 1, 1 << 16), ("rank", 1, 16384)):
            between(name, getattr(self, name), low, high)
        between("alpha", self.alpha)
        one_of("where", self.where, tuple(WHERE))


LABEL = Label(ConceptInfo, "cologen-concept", "concept", "CoLoGen Train Subject")


class Bend(NamedTuple):
    """A low-rank change of some of a layer's rows."""

    rows: slice
    pair: LowRank


class Concept:
    def __init__(self, info: ConceptInfo, tensors: Mapping[str, Tensor]):
        self.info, self.tensors = info, tensors

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Concept":
        file = SafeFile(path)
        info = LABEL.read(file)
        shapes = {**expected_shapes(info), **dict.fromkeys(alphas(info), ())}
        check_tensors(file, shapes)
        if any(file[name] != torch.tensor(float(info.alpha), dtype=file[name].dtype) for name in alphas(info)):
            raise FileError(f"{file.name} has another alpha than its metadata says ({info.alpha:g}): save it again.")
        return cls(info, {name: file[name] for name in expected_shapes(info)})

    def save(self, path: str | os.PathLike) -> Path:
        return write(path, {TOKENS: self.vectors, **self.lora()}, LABEL.metadata(self.info))

    @property
    def vectors(self) -> Tensor:
        return self.tensors[TOKENS]

    def lora(self) -> dict[str, Tensor]:
        """The weights as any LoRA loader takes them."""
        weights = {name: tensor for name, tensor in self.tensors.items() if name.startswith(WEIGHTS)}
        return weights | {name: torch.tensor(float(self.info.alpha)) for name in alphas(self.info)}


def looks_like_concept(path: str | os.PathLike) -> bool:
    return begins_with(path, MARK, LOOKED_AT)


def layers(info: ConceptInfo) -> Iterator[tuple[str, slice, str]]:
    """Of each pair of matrices: FLUX's layer, the rows of it, and the name in the file."""
    dim = info.base.hidden_size
    for kind in WHERE[info.where]:
        layer, name = LAYERS[kind]
        for i, block in enumerate(info.base.blocks(kind)):
            for j, target in enumerate(TARGETS, start=1):  # q comes first
                yield f"{block}.{layer}", slice(j * dim, (j + 1) * dim), name.format(i, target)


def expected_shapes(info: ConceptInfo) -> dict[str, tuple[int, ...]]:
    """What is learned."""
    dim, shapes = info.base.hidden_size, {TOKENS: (info.tokens, info.width)}
    for _, _, name in layers(info):
        shapes |= {f"{name}.lora_A.weight": (info.rank, dim), f"{name}.lora_B.weight": (dim, info.rank)}
    return shapes


def alphas(info: ConceptInfo) -> list[str]:
    return [f"{name}.alpha" for _, _, name in layers(info)]


def bends_of(info: ConceptInfo, tensors: Mapping[str, Tensor]) -> dict[str, list[Bend]]:
    """By FLUX's layer, what the weights add to it."""
    found: dict[str, list[Bend]] = {}
    for layer, rows, name in layers(info):
        down, up = (tensors[f"{name}.lora_{part}.weight"] for part in "AB")
        found.setdefault(layer, []).append(Bend(rows, LowRank(down, up, info.alpha / info.rank)))
    return found


def beside_noun(text: Tensor, words: Words | None, vectors: Tensor) -> tuple[Tensor, Words | None]:
    """Text tokens (batch, tokens, width) with vectors (tokens, width) or (batch, tokens, width) among them.

    Before the marked noun, so that whoever looks for its words finds the concept with them; behind all where none is.
    """
    at = min(words.noun) if words else text.shape[1]
    more = vectors.to(text.device).expand(len(text), -1, -1)
    longer = torch.cat((text[:, :at], more.to(torch.promote_types(text.dtype, more.dtype)), text[:, at:]), dim=1)
    if words is None:
        return longer, None
    count = more.shape[1]
    noun = (*range(at, at + count), *(row + count for row in words.noun))
    return longer, Words(noun, words.prompt + count)
