"""What every bench is built from: the shapes of a FLUX, a picture and a source, filled with random numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...prw.bank.bank import Bank
from ...prw.bank.edit import make_random_bank
from ...prw.base_model import Base
from ...prw.flux.flux1 import Flux
from ...prw.flux.inputs import FluxInputs
from ...prw.source import Routing, Source
from ..base.random_models import FLUX1, bank_info, random_flux

PIXELS_PER_TOKEN = 16
"""Side of the square of pixels that a token stands for."""
PIXELS_PER_LATENT = 8
"""Side of the square of pixels that a cell of the latents stands for."""


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

    @classmethod
    def flux1(cls, target: int, source: int) -> "Shapes":
        """FLUX.1's own."""
        return cls(FLUX1["hidden_size"], FLUX1["depth"], FLUX1["depth_single_blocks"], target, source)

    @property
    def expert_rank(self) -> int:
        return self.rank or max(1, 128 * self.width // FLUX1["hidden_size"])

    @property
    def heads(self) -> int:
        return self.width // 128

    def count_tokens(self, pixels: int) -> int:
        """Tokens of a square picture of this side."""
        return (pixels // PIXELS_PER_TOKEN) ** 2

    def floor(self) -> float:
        """The least that a step with longer keys can take, over a plain step, by arithmetic (inference.py)."""
        n = self.text + self.count_tokens(self.target)
        return 1 + 2 * self.count_tokens(self.source) / (12 * self.width + 2 * n)

    def kv_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of a source's keys and values in all blocks."""
        return 2 * self.count_tokens(self.source) * self.width * (self.double + self.single) * dtype.itemsize

    def make_flux(self, dtype: torch.dtype, device: str) -> Flux:
        shape = dict(hidden_size=self.width, num_heads=self.heads, depth=self.double)
        return random_flux(dtype=dtype, device=device, depth_single_blocks=self.single, gain=0.5, **shape)

    def make_bank(self, flux: Flux, names: Sequence[str] = ("inpaint", "ground", "control", "subject", "edit")) -> Bank:
        return make_random_bank(bank_info(Base.of(flux), tuple(names), self.expert_rank), up=0.02)

    def make_inputs(self, flux: Flux, dtype: torch.dtype, device: str, more_height: int = 0) -> FluxInputs:
        """Random inputs of a sampler step, with `more_height` pixels added to the picture's height."""
        generator = torch.Generator(device).manual_seed(1)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device, dtype=dtype)

        x = normal(1, 16, (self.target + more_height) // PIXELS_PER_LATENT, self.target // PIXELS_PER_LATENT)
        times, guidance = torch.full((1,), 0.7, device=device), torch.full((1,), 3.5, device=device)
        context, pooled = normal(1, self.text, flux.params.context_in_dim), normal(1, flux.params.vec_in_dim)
        return FluxInputs(x, times, context, pooled, guidance)

    def make_source(self, routing: Routing | None = None, seed: int = 2) -> Source:
        """Random latents of a source, for the expert of edits if not told otherwise."""
        side, generator = self.source // PIXELS_PER_LATENT, torch.Generator().manual_seed(seed)
        return Source(torch.randn(1, 16, side, side, generator=generator), routing or Routing(task="edit"))
