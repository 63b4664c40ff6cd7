"""Features of a picture that are drawn along with it: the file that a stage with features writes beside its bank.

    h = in.weight z + in.kind                         tokens (batch, tokens, dim) of the features z (batch, tokens, size)
    prediction = head.weight norm(h') + head.bias     from the tokens h' behind the last block

A file holds these few tensors. It is of use only with the bank whose expert learned beside them.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base_model import Base
from ..files.file_metadata import FileMetadata
from ..files.safe_file import SafeFile, check_numbers, check_tensors, header_matches
from ..files.safetensors_writer import write_safetensors
from ..files.validate import check_choice, check_range

SUFFIX = ".features"
"""In the name of such a file, before .safetensors."""
MARKER, HEADER_BYTES = re.compile(b"cologen-features"), 1 << 12
"""The metadata's format, and how far into a file to look for it."""
CELLS = 8
"""Cells along a side of the picture; fewer where it has fewer tokens."""


@dataclass(frozen=True)
class FeaturesInfo:
    """The metadata of a features file."""

    base: Base = field(default_factory=Base)
    way: str = "coredi"
    """How the features were learned, a stage's `features`: a key of FEATURE_STATES, which carry them from step to step."""
    task: str = ""
    """The only task whose pictures read the features."""
    size: int = 32
    """Channels of a feature."""

    def __post_init__(self):
        check_choice("way", self.way, tuple(FEATURE_STATES))
        check_range("size", self.size, 1, 1 << 16)


METADATA = FileMetadata(FeaturesInfo, "cologen-features", "features file", "a training stage with features")


class Features:
    """A features file: its tensors and its metadata."""

    def __init__(self, info: FeaturesInfo, tensors: Mapping[str, Tensor]):
        self.info, self.tensors = info, tensors

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Features":
        file = SafeFile(path)
        info = METADATA.decode(file)
        check_tensors(file, list_shapes(info))
        tensors = {name: file[name].float() for name in file}
        check_numbers(file.name, tensors)
        return cls(info, tensors)

    def save(self, path: str | os.PathLike) -> Path:
        return write_safetensors(path, self.tensors, METADATA.encode(self.info))

    def to(self, device: torch.device) -> "Features":
        return Features(self.info, {name: tensor.to(device) for name, tensor in self.tensors.items()})


def looks_like_features(path: str | os.PathLike) -> bool:
    return header_matches(path, MARKER, HEADER_BYTES)


def list_shapes(info: FeaturesInfo) -> dict[str, tuple[int, ...]]:
    """Lists shapes of a file's tensors by their names."""
    dim, size = info.base.hidden_size, info.size
    return {
        "norm.weight": (dim,),
        "norm.bias": (dim,),
        "head.weight": (size, dim),
        "head.bias": (size,),
        "in.weight": (dim, size),
        "in.kind": (dim,),
    }


def embed_features(tensors: Mapping[str, Tensor], z: Tensor) -> Tensor:
    """Embeds features z (batch, tokens, size) as tokens (batch, tokens, dim)."""
    return F.linear(z, tensors["in.weight"]) + tensors["in.kind"]


def predict_features(tensors: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """Predicts features (batch, tokens, size) from last tokens (batch, tokens, dim),
    the stream's own or the picture's."""
    tokens = tokens.float()
    normed = F.layer_norm(tokens, tokens.shape[-1:], tensors["norm.weight"], tensors["norm.bias"])
    return F.linear(normed, tensors["head.weight"], tensors["head.bias"])


class FeatureState(Protocol):
    """The features of one batch of pictures over a sampling run, from noise (batch, tokens, size) on."""

    def __init__(self, tensors: Mapping[str, Tensor], noise: Tensor): ...

    def advance(self, t: float) -> Tensor | None:
        """Goes to the time t and returns the features that the tokens hold there; None: no tokens yet."""

    def update(self, stream_tokens: Tensor | None, picture_tokens: Tensor, pool: Tensor) -> None:
        """Updates the features by a forward's last tokens: the stream's own and the picture's; `pool` averages these to cells."""


class CoevolvingState(FeatureState):
    """z starts as noise around 0, the features' mean, and follows its prediction p: z' = p + t' / t (z - p).

    That is Euler's step for dz/dt = (z - p) / t, from one time to whichever the sampler looks at next.
    """

    def __init__(self, tensors: Mapping[str, Tensor], noise: Tensor):
        self.tensors, self.z, self.prediction, self.t = tensors, noise, torch.zeros_like(noise), 1.0

    def advance(self, t: float) -> Tensor | None:
        self.z, self.t = self.prediction + t / self.t * (self.z - self.prediction), t
        return self.z

    def update(self, stream_tokens: Tensor | None, picture_tokens: Tensor, pool: Tensor) -> None:
        if stream_tokens is not None:  # always: they have tokens in every forward
            self.prediction = predict_features(self.tensors, stream_tokens)


class SelfConditionedState(FeatureState):
    """The tokens say what was predicted from the last forward's picture; the first forward has none."""

    def __init__(self, tensors: Mapping[str, Tensor], noise: Tensor):
        self.tensors = tensors
        self.prediction: Tensor | None = None

    def advance(self, t: float) -> Tensor | None:
        return self.prediction

    def update(self, stream_tokens: Tensor | None, picture_tokens: Tensor, pool: Tensor) -> None:
        self.prediction = pool @ predict_features(self.tensors, picture_tokens)


FEATURE_STATES: dict[str, type[FeatureState]] = {"coredi": CoevolvingState, "self": SelfConditionedState}


def make_pooling_matrix(rows: int, columns: int) -> Tensor:
    """Makes the matrix (cells + 1, tokens) from tokens to their cells' means and, last, the mean of all."""
    down, across = (F.adaptive_avg_pool1d(torch.eye(size)[None], min(CELLS, size))[0].T for size in (rows, columns))
    mean = torch.full((1, rows * columns), 1 / (rows * columns))
    return torch.cat((torch.kron(down.contiguous(), across.contiguous()), mean))
