"""The layers that FLUX families share, in the public weights' names: projections, norms, modulation, MLPs."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .math import ModulationOut


@dataclass(frozen=True)
class BlockStyle:
    """How a family builds its blocks; the defaults are FLUX.1's."""

    bias: bool = True
    """Whether projections have a bias."""
    modulation: bool = True
    """Each block computes its own from `vec`; False: `vec` holds ready ones, shared by all blocks of a kind."""
    gated: bool = False
    """The MLP is silu(a) * b with [a | b] from one projection, not GELU."""


FLUX1_STYLE = BlockStyle()


class Linear(nn.Linear):
    """Casts its weight to the input's dtype: fp8 files then run in bf16, everything else unchanged."""

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


class RMSNorm(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.scale.shape, self.scale.to(x.dtype))


class QKNorm(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.query_norm = RMSNorm(dim)
        self.key_norm = RMSNorm(dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.query_norm(q).to(v), self.key_norm(k).to(v)


class GatedSiLU(nn.Module):
    """The activation of a gated MLP: silu(a) * b of [a | b]."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return F.silu(a) * b


class SelfAttention(nn.Module):
    """The projections of one stream of a double block; attention itself is joint."""

    def __init__(self, dim: int, num_heads: int, bias: bool = True):
        super().__init__()
        self.qkv = Linear(dim, dim * 3, bias)
        self.norm = QKNorm(dim // num_heads)
        self.proj = Linear(dim, dim, bias)


class MLPEmbedder(nn.Module):
    """Two layers from a sinusoidal embedding, or a pooled prompt, to FLUX's width."""

    def __init__(self, in_dim: int, hidden_dim: int, bias: bool = True):
        super().__init__()
        self.in_layer = Linear(in_dim, hidden_dim, bias)
        self.out_layer = Linear(hidden_dim, hidden_dim, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


class Modulation(nn.Module):
    """Shift, scale and gate of a block's parts from the modulation vector."""

    def __init__(self, dim: int, double: bool, bias: bool = True):
        super().__init__()
        self.is_double = double
        self.lin = Linear(dim, (6 if double else 3) * dim, bias)

    def forward(self, vec: Tensor) -> tuple[ModulationOut, ModulationOut | None]:
        out = self.lin(F.silu(vec))[:, None, :].chunk(6 if self.is_double else 3, dim=-1)
        return ModulationOut(*out[:3]), ModulationOut(*out[3:]) if self.is_double else None


def build_mlp(dim: int, hidden: int, style: BlockStyle) -> nn.Sequential:
    first = Linear(dim, hidden * (2 if style.gated else 1), style.bias)
    return nn.Sequential(first, GatedSiLU() if style.gated else nn.GELU("tanh"), Linear(hidden, dim, style.bias))


class LastLayer(nn.Module):
    """Modulated norm and projection from tokens to velocities."""

    def __init__(self, dim: int, out_channels: int, bias: bool = True):
        super().__init__()
        self.norm_final = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.linear = Linear(dim, out_channels, bias)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(dim, 2 * dim, bias))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec)[:, None, :].chunk(2, dim=-1)
        return self.linear((1 + scale) * self.norm_final(x) + shift)
