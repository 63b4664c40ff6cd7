"""Keys and values learned for a number, such as a picture's brightness: a Diffusion Template that is no model at all.

In every block two small networks make them, one for keys and one for values:

    e(s) + p_1 ... e(s) + p_n    with e(s) = W2 silu(W1 [cos, sin](1000 s) + b1) + b2 and a learned p for each key

They are used as they are, without norm and position. The file is `LearnedKeys`, a number's place in a prompt `LearnedSource`,
and how its keys and values get into a forward `LearnedGroup`.
"""

import os
import re
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .appended_kv import SampledKV
from .files.errors import FileError
from .files.safe_file import FLOATS, SafeFile, header_matches
from .files.validate import check_range, shorten
from .flux.math import embed_sinusoidal, rotary
from .kv_cache import STORE, SampleKV
from .source import Reading
from .source_group import ForwardBatch, SourceGroup
from .source_pass import Host
from .weaving import named_blocks

NAME = re.compile(r"proj_(?P<part>[kv])\.(?P<kind>double|single)_(?P<number>[0-9]{1,3})\..+")
FEATURES = 256
"""Sines and cosines of a number."""
LAYERS: dict[str, tuple[str | int, ...]] = {
    "prefer_value_embedder.0.weight": ("width", FEATURES),
    "prefer_value_embedder.0.bias": ("width",),
    "prefer_value_embedder.2.weight": ("width", "width"),
    "prefer_value_embedder.2.bias": ("width",),
    "positional_embedding": ("keys", "width"),
}
"""Name of a network's tensor -> its shape."""
MAX_KEYS, MAX_WIDTH = 1 << 14, 1 << 16
MARKER, HEADER_BYTES = re.compile(rb'"proj_k\.double_0\.'), 1 << 18


class LearnedKeys:
    """A file of such networks; they are read when a number's keys are asked for."""

    def __init__(self, file: SafeFile):
        self.file, self.name = file, file.name
        self.blocks = find_blocks(file, file.name)
        first = f"proj_k.{next(iter(self.blocks.values()))}.positional_embedding"
        shape = file.shape(first) if first in file else ()
        if len(shape) != 2 or not (0 < shape[0] <= MAX_KEYS and 0 < shape[1] <= MAX_WIDTH):
            raise FileError(
                f"{self.name} has learned keys of shape {shape}, expected (keys, width): download it again."
            )
        self.keys, self.width = shape
        self._check_shapes()

    @classmethod
    def open(cls, path: str | os.PathLike) -> "LearnedKeys":
        return cls(SafeFile(path))

    def compute(self, block: str, value: float) -> tuple[Tensor, Tensor]:
        """Computes the keys and values (keys, width) of a number in one block."""
        k, v = (self._run(f"proj_{part}.{self.blocks[block]}", value) for part in "kv")
        return k, v

    def check_base(self, width: int, blocks: Sequence[str]) -> None:
        """Raises if a model has other blocks, or another width."""
        if self.width != width or self.blocks.keys() != set(blocks):
            raise ValueError(
                f"{self.name} has keys of {self.width} numbers for {len(self.blocks)} blocks, the model is {width} wide and has "
                f"{len(blocks)}: load the FLUX.2 that the template was made for."
            )

    def _run(self, network: str, value: float) -> Tensor:
        first, first_bias, second, second_bias, positions = (self.file[f"{network}.{name}"].float() for name in LAYERS)
        return F.linear(F.silu(F.linear(embed(value), first, first_bias)), second, second_bias) + positions

    def _check_shapes(self) -> None:
        sizes = {"width": self.width, "keys": self.keys}
        networks = [f"proj_{part}.{block}" for part in "kv" for block in self.blocks.values()]
        expected = {f"{network}.{name}": shape for network in networks for name, shape in LAYERS.items()}
        for name in sorted(self.file.keys() | expected.keys()):
            if name not in expected or name not in self.file:
                raise FileError(
                    f"{self.name} {'lacks' if name in expected else 'has'} {shorten(name)}, expected keys learned for one number "
                    f"(as Brightness): other kinds of templates cannot be used yet."
                )
            shape = tuple(size if isinstance(size, int) else sizes[size] for size in expected[name])
            if self.file.shape(name) != shape or self.file.dtype(name) not in FLOATS:
                raise FileError(
                    f"{self.name}: {name} is {self.file.dtype(name)} of shape {self.file.shape(name)}, expected numbers of shape "
                    f"{shape}: download it again."
                )


def embed(value: float) -> Tensor:
    """Embeds 1000 times a number, which is rounded to bf16 as its trainer rounds it: 45 is 45056."""
    rounded = torch.tensor([value], dtype=torch.bfloat16) * 1000
    return embed_sinusoidal(rounded.double(), FEATURES)[0].float()


@dataclass(frozen=True, eq=False)
class LearnedSource(Reading):
    """A number whose learned keys a prompt carries. Immutable: caches rely on it."""

    learned: LearnedKeys
    value: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        check_range("value", self.value)

    def count_keys(self, patch_size: int, images: int) -> int:
        return self.learned.keys

    @cached_property
    def digest(self) -> str:
        return repr((self.learned.name, self.learned.file.state(), self.value))


class LearnedGroup(SourceGroup):
    """One number's keys and values in one forward: the same for all samples of the batch."""

    def __init__(self, host: Host, source: LearnedSource, batch: ForwardBatch):
        super().__init__(host, [source], batch)
        self.source = source

    def make_keys(self) -> list[Hashable]:
        key = (self.source.digest, self.placement, str(self.batch.device), self.host.dtype)
        return [key] * len(self.batch.readers.times)

    def read_state(self) -> Any:
        return None

    def compute(self, samples: Sequence[int]) -> list[SampleKV]:
        """Computes one entry, for all samples have one key."""
        flux, learned = self.host.flux, self.source.learned
        axes = flux.params.axes_dim
        learned.check_base(flux.params.hidden_size, [name for name, _ in named_blocks(flux)])
        unrotated = rotary(torch.zeros(1, learned.keys, len(axes)), axes, flux.params.theta)
        sample, store = SampleKV(unrotated.to(self.batch.device)), STORE[self.placement]
        for name, _ in named_blocks(flux):
            k, v = map(store, self._compute_block(name))
            sample.kv[name] = k, v
        return [sample]

    def _compute_block(self, block: str) -> Iterator[Tensor]:
        """Computes a block's keys and values (1, heads, keys, head_dim); raises if they are not finite."""
        heads, learned = self.host.flux.params.num_heads, self.source.learned
        kv = [part.to(self.host.dtype) for part in learned.compute(block, self.source.value)]
        if not all(torch.isfinite(part).all() for part in kv):
            raise FileError(
                f"{learned.name} gives keys that are not finite in {block}, expected numbers: download it again, or load FLUX in "
                f"bf16 instead of fp16."
            )
        return (rearrange(part.to(self.batch.device), "L (H D) -> 1 H L D", H=heads) for part in kv)

    def split(self, samples: Sequence[SampleKV]) -> Iterator[SampledKV]:
        yield SampledKV([self.source], samples)


def find_blocks(names: Collection[str], file_name: str) -> dict[str, str]:
    """Finds the blocks that a file has keys for: FLUX's name -> the file's."""
    matches = [match for match in map(NAME.fullmatch, names) if match]
    if not matches:
        raise FileError(
            f"{file_name} has no learned keys, expected a template that takes a number (as Brightness): load other files with "
            f"Load CoLoGen Experts."
        )
    found = sorted({(match["kind"], int(match["number"])) for match in matches})
    return {f"{kind}_blocks.{number}": f"{kind}_{number}" for kind, number in found}


def looks_like_learned_keys(path: str | os.PathLike) -> bool:
    return header_matches(path, MARKER, HEADER_BYTES)
