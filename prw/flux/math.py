"""The formulas that FLUX and its source stream share: timesteps, rotary positions, attention, modulation."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


class ModulationOut(NamedTuple):
    shift: Tensor
    scale: Tensor
    gate: Tensor


def timestep_embedding(t: Tensor, dim: int = 256) -> Tensor:
    """Embeds 1000 t, as FLUX does with the timestep (0 clean, 1 noise) and guidance."""
    return embed_sinusoidal(1000.0 * t.float(), dim)


def embed_sinusoidal(x: Tensor, dim: int) -> Tensor:
    """Computes cosines and sines (batch, dim) of numbers x (batch,), in their type."""
    half = dim // 2
    steps = torch.arange(half, dtype=x.dtype, device=x.device)
    args = x[:, None] * torch.exp(-math.log(10_000) * steps / half)
    return torch.cat([torch.cos(args), torch.sin(args)], dim=-1)


def rotary(ids: Tensor, axes_dim: tuple[int, ...], theta: int) -> Tensor:
    """Turns positions (batch, tokens, axes) into rotation matrices (batch, 1, tokens, head_dim / 2, 2, 2)."""
    device = ids.device
    if device.type in ("mps", "xpu"):  # they have no float64
        ids = ids.cpu()
    angles = []
    for axis, dim in enumerate(axes_dim):
        scale = torch.linspace(0, (dim - 2) / dim, dim // 2, dtype=torch.float64, device=ids.device)
        angles.append(ids[..., axis, None].double() / theta**scale)
    angle = torch.cat(angles, dim=-1)
    cos, sin = angle.cos(), angle.sin()
    pe = rearrange(torch.stack([cos, -sin, sin, cos], dim=-1), "... (i j) -> ... i j", i=2)
    return pe.float().unsqueeze(1).to(device)


def rotate(x: Tensor, pe: Tensor) -> Tensor:
    """Applies the first tokens of `pe` to x (batch, heads, tokens, head_dim)."""
    pe = pe[:, :, : x.shape[2]]
    pairs = x.to(pe.dtype).reshape(*x.shape[:-1], -1, 1, 2)
    turned = pe[..., 0] * pairs[..., 0] + pe[..., 1] * pairs[..., 1]
    return turned.reshape(x.shape).to(x)


def attention(q: Tensor, k: Tensor, v: Tensor, pe: Tensor, mask: Tensor | None = None) -> Tensor:
    q, k = rotate(q, pe), rotate(k, pe)
    return rearrange(F.scaled_dot_product_attention(q, k, v, mask), "B H L D -> B L (H D)")


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = rearrange(qkv, "B L (K H D) -> K B H L D", K=3, H=heads)
    return q, k, v


def modulate(x: Tensor, mod: ModulationOut) -> Tensor:
    return (1 + mod.scale) * x + mod.shift
