"""A template as what it adds to its base: a file of some hundred MB that runs on the base's own weights.

A template is a whole FLUX beside the base (importers/template.py). Its layers' differences to the base's stand here:

    <layer>.down, <layer>.up    low rank, by SVD (extract.py)
    <layer>.difference          as it is: norms, and matrices for which low rank would be no smaller

Layers have their names in FLUX; one that is the same in both is left out.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from ..base_model import Base
from ..experts import LowRank
from ..files.errors import FileError
from ..files.file_metadata import FileMetadata
from ..files.safe_file import FLOATS, SafeFile
from ..files.safetensors_writer import write_safetensors
from ..files.validate import check_range, shorten
from ..flux.blocks import FluxModel
from ..flux.changed_model import Residual, change_model
from ..flux.families import Flux

DIFFERENCE, DOWN, UP = "difference", "down", "up"


@dataclass(frozen=True)
class DifferenceInfo:
    """The metadata of a template's difference."""

    base: Base = field(default_factory=Base)
    """What it was extracted against."""
    template: str = ""
    """The template's file."""
    rank: int = 64
    """The most that a layer has."""
    licence: str = ""

    def __post_init__(self):
        check_range("rank", self.rank, 1, 1 << 16)


METADATA = FileMetadata(DifferenceInfo, "cologen-template-difference", "template's difference", "cologen bank extract")


class TemplateDifference:
    """What a template adds to the layers of its base."""

    def __init__(self, info: DifferenceInfo, tensors: Mapping[str, Tensor]):
        self.info, self.tensors = info, tensors

    @classmethod
    def open(cls, path: str | os.PathLike) -> "TemplateDifference":
        """Reads the header; a layer is read when it is needed."""
        return cls.of(SafeFile(path))

    @classmethod
    def of(cls, file: SafeFile) -> "TemplateDifference":
        """Checks the header of an open file."""
        info = METADATA.decode(file)
        _check_parts(file)
        return cls(info, file)

    def save(self, path: str | os.PathLike) -> Path:
        return write_safetensors(path, self.tensors, METADATA.encode(self.info))

    def build(self, base: FluxModel) -> Flux:
        """Builds the template on the layers of its base, ours or ComfyUI's; raises where the base has another shape."""
        if problem := self.info.base.describe_incompatibility(Base.of(base)):
            raise FileError(problem.replace("the bank was", "the template was"))
        layers = {name.rpartition(".")[0] for name in self.tensors}
        known = dict(base.named_modules())
        for layer in layers:
            self._check_size(layer, known.get(layer))
        return change_model(base, {layer: self._make_residual(layer) for layer in layers})

    def _check_size(self, layer: str, module: nn.Module | None) -> None:
        difference = self.tensors.get(f"{layer}.{DIFFERENCE}")
        if difference is None:
            size = len(self.tensors[f"{layer}.{UP}"]), self.tensors[f"{layer}.{DOWN}"].shape[1]
        else:
            size = difference.shape[0], difference.shape[-1]
        weight = getattr(module, "weight", getattr(module, "scale", None))
        if weight is None or size != (weight.shape[0], weight.shape[-1]):
            raise FileError(
                f"The template's difference in {shorten(layer)} fits no layer of this FLUX: load the base that it was made for."
            )

    def _make_residual(self, layer: str) -> Residual:
        difference = self.tensors.get(f"{layer}.{DIFFERENCE}")
        if difference is None:
            return LowRank(self.tensors[f"{layer}.{DOWN}"], self.tensors[f"{layer}.{UP}"], 1.0)
        return partial(add_norm if difference.ndim == 1 else add_matrix, difference)


def add_matrix(difference: Tensor, x: Tensor) -> Tensor:
    """Computes what a matrix's difference adds to the layer's output."""
    return F.linear(x, difference.to(x))


def add_norm(difference: Tensor, x: Tensor) -> Tensor:
    """Computes what an RMS norm's difference adds: the norm is linear in its scale."""
    return F.rms_norm(x, difference.shape, difference.to(x))


def _check_parts(file: SafeFile) -> None:
    """Raises if a layer has other tensors than a pair that fits together, or one difference."""
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for name in file:
        layer, _, part = name.rpartition(".")
        layers.setdefault(layer, {})[part] = file.shape(name)
        if file.dtype(name) not in FLOATS:
            raise FileError(f"{file.name}: {shorten(name)} is {file.dtype(name)}, expected floats: extract it again.")
    for layer, shapes in layers.items():
        down, up = shapes.get(DOWN, ()), shapes.get(UP, ())
        is_pair = shapes.keys() == {DOWN, UP} and len(down) == len(up) == 2 and up[1] == down[0]
        if not is_pair and (shapes.keys() != {DIFFERENCE} or len(shapes[DIFFERENCE]) not in (1, 2)):
            raise FileError(
                f"{file.name} has {shorten(shapes)} for {shorten(layer)}, expected a pair down and up, or one difference: "
                f"extract it again."
            )
