"""From a template and its base to their difference, layer by layer: the largest singular values of what was learned.

Both files are memory-mapped and a layer is computed when it is written, so that neither model is ever whole in memory.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..files.errors import FileError
from ..files.lazy_tensors import LazyTensors
from ..files.validate import check_range, shorten
from ..flux.math import timestep_embedding
from .compress import FP8, RelativeError
from .difference import DIFFERENCE, DOWN, UP

UNUSED, TIME = "final_layer.", "time_in."
"""What begins the names of weights that a template is not read by, and of those that make its timestep's vector."""
MODULATIONS = ("double_stream_modulation_img.lin", "double_stream_modulation_txt.lin", "single_stream_modulation.lin")
"""Layers that read the timestep's vector."""
OVERSAMPLING, POWER_ITERATIONS = 16, 6
"""Of the randomized SVD: directions beyond the rank, and power iterations."""


class ExtractedTensors(LazyTensors):
    """A difference's tensors; the layer that was made last is kept for its other part."""

    def __init__(self, template: Mapping[str, Tensor], base: Mapping[str, Tensor], rank: int, dtype: torch.dtype):
        check_range("rank", rank, 1, 1 << 16)
        self._template, self._base, self._rank, self._dtype = template, base, rank, dtype
        self.error = RelativeError()
        self._weights = {name.rpartition(".")[0]: name for name in find_changed(template, base)}
        """By layer: the name of its weight in both files."""
        parts = ((layer, part) for layer in self._weights for part in self._list_parts(layer))
        super().__init__(dict.fromkeys(f"{layer}.{part}" for layer, part in parts))
        self._layer, self._made = "", {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        layer, _, part = name.rpartition(".")
        if layer != self._layer:
            self._layer, self._made = layer, self._make(layer)
        return self._made[part]

    def itemsize(self, name: str) -> int:
        return self._find_type(name.rpartition(".")[0]).itemsize

    def _list_parts(self, layer: str) -> tuple[str, ...]:
        """Lists what is stored of the differences; our choice:
        low rank where that is smaller than the difference itself."""
        shape = self._template[self._weights[layer]].shape
        is_smaller = len(shape) == 2 and self._rank * sum(shape) < shape[0] * shape[1]
        return (DOWN, UP) if is_smaller or layer in MODULATIONS else (DIFFERENCE,)

    def _find_type(self, layer: str) -> torch.dtype:
        """Finds the type to store in: what all tokens pass and is only a few numbers keeps all its digits."""
        is_small = layer in MODULATIONS or self._template[self._weights[layer]].ndim < 2
        return torch.float32 if is_small else self._dtype

    def _make(self, layer: str) -> dict[str, Tensor]:
        """Makes a layer's parts and measures what they, as they are stored, leave out."""
        parts, name = self._list_parts(layer), self._weights[layer]
        if layer in MODULATIONS:
            learned, *found = reduce_modulation(self._template, self._base, name)
        else:
            learned = self._template[name].float() - self._base[name].float()
            _check_finite(layer, learned)
            found = (learned,) if parts == (DIFFERENCE,) else factor(learned, self._rank)
        _check_finite(layer, *found)
        made = {part: tensor.to(self._find_type(layer)) for part, tensor in zip(parts, found, strict=True)}
        kept = made[DIFFERENCE].float() if DIFFERENCE in made else made[UP].float() @ made[DOWN].float()
        self.error.add(layer, (learned - kept).square().sum(), learned.square().sum())
        return made


def _check_finite(layer: str, *tensors: Tensor) -> None:
    if not all(torch.isfinite(tensor).all() for tensor in tensors):
        raise FileError(f"{layer} holds numbers that are not finite, expected a whole template: download it again.")


def factor(difference: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Gives the best down and up of a rank, the root of each singular value in either.

    Randomized (Halko, Martinsson and Tropp 2011) where that is much cheaper than all singular values.
    """
    if 4 * (rank + OVERSAMPLING) < min(difference.shape):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            u, singular, v = torch.svd_lowrank(difference, rank + OVERSAMPLING, POWER_ITERATIONS)
    else:
        u, singular, vh = torch.linalg.svd(difference, full_matrices=False)
        v = vh.T
    root = singular[:rank].sqrt()
    return (v[:, :rank] * root).T.contiguous(), u[:, :rank] * root


def reduce_modulation(
    template: Mapping[str, Tensor], base: Mapping[str, Tensor], name: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Reduces the difference of a modulation as it acts on the base's vector, its down and its up.

    A template runs at timestep 0 alone, so that a modulation reads one vector only: rank one says all of it, and
    what the template learned in the timestep's own layers as well.
    """
    vectors = [compute_time_vector(weights) for weights in (template, base)]
    learned, own = (weights[name].float() @ vector for weights, vector in zip((template, base), vectors, strict=True))
    down, up = (vectors[1] / vectors[1].square().sum().clamp(min=1e-30))[None], (learned - own)[:, None]
    return up @ down, down, up


def compute_time_vector(weights: Mapping[str, Tensor]) -> Tensor:
    """Computes what modulations read at timestep 0."""
    hidden = F.silu(weights[f"{TIME}in_layer.weight"].float() @ timestep_embedding(torch.zeros(1))[0])
    return F.silu(weights[f"{TIME}out_layer.weight"].float() @ hidden)


def find_changed(template: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> list[str]:
    """Names of the weights to extract: those that are not the same in both, and modulations.

    Raises if the two are not of one shape.
    """
    names = sorted(name for name in template.keys() | base.keys() if not name.startswith(UNUSED))
    for name in names:
        _check_same_shape(name, template, base)
    changed = [name for name in names if not torch.equal(template[name].float(), base[name].float())]
    if not changed:
        raise FileError("The template is the base itself, expected another training of it: choose the template's file.")
    modulations = [f"{layer}.weight" for layer in MODULATIONS]
    return sorted({*modulations, *(name for name in changed if not name.startswith(TIME))})


def _check_same_shape(name: str, template: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> None:
    choose = "choose the base that the template was made from"
    for weights, where, other in ((template, "template", "base"), (base, "base", "template")):
        if name not in weights:
            raise FileError(f"The {other} has {shorten(name)}, the {where} has not: {choose}.")
        if weights[name].dtype in FP8:
            raise FileError(f"The {where} is fp8, whose rounding would count as learned: use its bf16 file.")
    shapes = tuple(template[name].shape), tuple(base[name].shape)
    if shapes[0] != shapes[1]:
        raise FileError(f"{name} has shape {shapes[0]} in the template and {shapes[1]} in the base: {choose}.")
