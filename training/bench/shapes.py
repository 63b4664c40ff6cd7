"""What every bench is built from: the shapes of a FLUX, a picture and a source, filled with random numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ...prw.bank.bank import Bank
from ...prw.bank.edit import make_random_bank
from ...prw.base_model import Base
from ...prw.flux.families import FAMILIES, FLUX1, Family, Flux
from ...prw.flux.inputs import FluxInputs
from ...prw.source import Routing, Source
from ..base.known_models import KNOWN_MODELS, KnownModel
from ..base.random_models import RANDOM_MODELS, bank_info

PIXELS_PER_TOKEN = 16
"""Side of the square of pixels that a token stands for."""
PAPER_RANK, PAPER_WIDTH = 128, 3072
"""An expert's rank in the paper, and FLUX's width there."""


class Preset(NamedTuple):
    """A model's shape by name: each number may be told otherwise, `--width` and so on."""

    family: str
    width: int
    double: int
    single: int
    text: int
    dtype: str


def make_preset(model: KnownModel) -> Preset:
    params = model.params
    return Preset(model.family.name, params.hidden_size, params.depth, params.depth_single_blocks, 512, "bfloat16")


PRESETS = {
    "small": Preset(FLUX1.name, 1024, 2, 4, 256, "float32"),
    "flux1": make_preset(KNOWN_MODELS["flux1"]),
    "klein4b": make_preset(KNOWN_MODELS["klein-4b"]),
    "klein9b": make_preset(KNOWN_MODELS["klein-9b"]),
}


@dataclass(frozen=True)
class Shapes:
    """Sizes of a FLUX and of what it is given; sides in pixels."""

    width: int = 1024
    """The hidden size."""
    double: int = 2
    """Double blocks."""
    single: int = 4
    """Single blocks."""
    target: int = 512
    """Side of the picture."""
    source: int = 512
    """Side of the source."""
    text: int = 512
    """Text tokens."""
    rank: int = 0
    """An expert's rank; 0: the paper's 128 at width 3072, in proportion."""
    family: str = FLUX1.name
    """A row of FAMILIES."""

    @property
    def row(self) -> Family:
        return FAMILIES[self.family]

    @property
    def expert_rank(self) -> int:
        return self.rank or max(1, PAPER_RANK * self.width // PAPER_WIDTH)

    @property
    def heads(self) -> int:
        return self.width // 128

    def count_tokens(self, pixels: int) -> int:
        """Counts tokens of a square picture of this side."""
        return (pixels // PIXELS_PER_TOKEN) ** 2

    def floor(self) -> float:
        """Gives the least that a step with longer keys can take, over a plain step, by arithmetic (inference.py)."""
        n, layers = self.text + self.count_tokens(self.target), 4 + self.row.mlp_rows + self.row.mlp_width
        return 1 + 2 * self.count_tokens(self.source) / (layers * self.width + 2 * n)

    def kv_bytes(self, dtype: torch.dtype) -> int:
        """Gives bytes of a source's keys and values in all blocks."""
        return 2 * self.count_tokens(self.source) * self.width * (self.double + self.single) * dtype.itemsize

    def make_flux(self, dtype: torch.dtype, device: str) -> Flux:
        shape = dict(hidden_size=self.width, num_heads=self.heads, depth=self.double)
        make = RANDOM_MODELS[self.family]
        return make(dtype=dtype, device=device, depth_single_blocks=self.single, gain=0.5, **shape)

    def make_bank(self, flux: Flux, names: Sequence[str] = ("inpaint", "ground", "control", "subject", "edit")) -> Bank:
        return make_random_bank(bank_info(Base.of(flux), tuple(names), self.expert_rank), up=0.02)

    def make_inputs(self, flux: Flux, dtype: torch.dtype, device: str, more_height: int = 0) -> FluxInputs:
        """Makes random inputs of a sampler step, with `more_height` pixels added to the picture's height."""
        generator = torch.Generator(device).manual_seed(1)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device, dtype=dtype)

        pixels = self.row.latent_pixels
        x = normal(1, self.row.latent_channels, (self.target + more_height) // pixels, self.target // pixels)
        times, context = torch.full((1,), 0.7, device=device), normal(1, self.text, flux.params.context_in_dim)
        pooled = normal(1, flux.params.vec_in_dim) if self.row.reads_prompt else None
        guidance = torch.full((1,), 3.5, device=device) if self.row.reads_guidance(flux.params) else None
        return FluxInputs(x, times, context, pooled, guidance)

    def make_source(self, routing: Routing | None = None, seed: int = 2) -> Source:
        """Makes random latents of a source, for the expert of edits if not told otherwise."""
        side, generator = self.source // self.row.latent_pixels, torch.Generator().manual_seed(seed)
        latent = torch.randn(1, self.row.latent_channels, side, side, generator=generator)
        return Source(latent, routing or Routing(task="edit"))
