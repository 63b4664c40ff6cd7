"""Features of a picture that are drawn along with it: what a stage that learned them leaves beside its bank.

    h = in.weight z + in.kind                   their tokens, from z (batch, tokens, size)
    told = head.weight norm(h') + head.bias     what is told of them behind the last block

A file holds these few tensors. It is of use only with the bank whose expert learned beside them.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base_model import Base
from ..files.file_metadata import Label
from ..files.safe_file import SafeFile, begins_with, check_tensors
from ..files.safetensors_writer import write
from ..files.validate import between, one_of

SUFFIX = ".features"
"""Of files beside banks."""
MARK, LOOKED_AT = re.compile(b"cologen-features"), 1 << 12
"""Bytes of a file; metadata comes first."""
CELLS = 8
"""Along a side; fewer where a picture has fewer tokens."""


@dataclass(frozen=True)
class FeaturesInfo:
    base: Base = field(default_factory=Base)
    way: str = "coredi"
    """How z goes on from step to step: a key of WAYS."""
    task: str = ""
    """The only one whose pictures know them."""
    size: int = 32

    def __post_init__(self):
        one_of("way", self.way, tuple(WAYS))
        between("size", self.size, 1, 1 << 16)


LABEL = Label(FeaturesInfo, "cologen-features", "features file", "a training stage with features")


class Features:
    def __init__(self, info: FeaturesInfo, tensors: Mapping[str, Tensor]):
        self.info, self.tensors = info, tensors

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Features":
        file = SafeFile(path)
        info = LABEL.read(file)
        check_tensors(file, shapes(info))
        return cls(info, {name: file[name].float() for name in file})

    def save(self, path: str | os.PathLike) -> Path:
        return write(path, self.tensors, LABEL.metadata(self.info))

    def to(self, device: torch.device) -> "Features":
        return Features(self.info, {name: tensor.to(device) for name, tensor in self.tensors.items()})


def looks_like_features(path: str | os.PathLike) -> bool:
    return begins_with(path, MARK, LOOKED_AT)


def shapes(info: FeaturesInfo) -> dict[str, tuple[int, ...]]:
    dim, size = info.base.hidden_size, info.size
    return {
        "norm.weight": (dim,),
        "norm.bias": (dim,),
        "head.weight": (size, dim),
        "head.bias": (size,),
        "in.weight": (dim, size),
        "in.kind": (dim,),
    }


def begun(tensors: Mapping[str, Tensor], z: Tensor) -> Tensor:
    """Tokens (batch, tokens, dim)."""
    return F.linear(z, tensors["in.weight"]) + tensors["in.kind"]


def told(tensors: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """What last tokens (batch, tokens, dim) tell, their own or the picture's, each of its place."""
    tokens = tokens.float()
    seen = F.layer_norm(tokens, tokens.shape[-1:], tensors["norm.weight"], tensors["norm.bias"])
    return F.linear(seen, tensors["head.weight"], tensors["head.bias"])


class Coevolving:
    """z starts as noise around 0, the features' mean, and follows what is told of it: z' = told + t' / t (z - told).

    That is Euler's step for dz/dt = (z - told) / t, from one time to whichever the sampler looks at next.
    """

    def __init__(self, tensors: Mapping[str, Tensor], noise: Tensor):
        self.tensors, self.z, self.told, self.t = tensors, noise, torch.zeros_like(noise), 1.0

    def at(self, t: float) -> Tensor | None:
        """What the tokens say at this time, None: nothing yet."""
        self.z, self.t = self.told + t / self.t * (self.z - self.told), t
        return self.z

    def hear(self, own: Tensor | None, picture: Tensor, pool: Tensor) -> None:
        """The last tokens of a forward: their own, and the picture's."""
        self.told = told(self.tensors, own)


class SelfConditioned:
    """The tokens say what was told of the last picture; the first one has none."""

    def __init__(self, tensors: Mapping[str, Tensor], noise: Tensor):
        self.tensors = tensors
        self.told: Tensor | None = None

    def at(self, t: float) -> Tensor | None:
        return self.told

    def hear(self, own: Tensor | None, picture: Tensor, pool: Tensor) -> None:
        self.told = pool @ told(self.tensors, picture)


WAYS = {"coredi": Coevolving, "self": SelfConditioned}


def pooling(rows: int, columns: int) -> Tensor:
    """The matrix (cells + 1, tokens) from tokens to their cells' means and, last, the mean of all."""
    down, across = (F.adaptive_avg_pool1d(torch.eye(size)[None], min(CELLS, size))[0].T for size in (rows, columns))
    every = torch.full((1, rows * columns), 1 / (rows * columns))
    return torch.cat((torch.kron(down.contiguous(), across.contiguous()), every))
