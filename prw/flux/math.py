"""The formulas that FLUX and its source stream share: timesteps, rotary positions, attention, modulation."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

FEW_KEYS = 512
"""Up to so many keys, a CPU computes attention and its gradient faster by the formula than by its fused kernels."""


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
    pe, pairs = pe[:, :, : x.shape[2]], x.to(pe.dtype).unflatten(-1, (-1, 2))
    if is_rotated_by_complex_numbers(pe):
        turned = torch.view_as_real(
            torch.view_as_complex(pairs.contiguous()) * torch.complex(pe[..., 0, 0], pe[..., 1, 0])
        )
    else:
        turned = pe[..., 0] * pairs[..., :1] + pe[..., 1] * pairs[..., 1:]
    return turned.reshape(x.shape).to(x)


def is_rotated_by_complex_numbers(pe: Tensor) -> bool:
    """Says whether complex numbers give the same bits in less time: on a CPU, its gradient included in a quarter. Not every device and compiler has them."""
    return pe.device.type == "cpu" and pe.dtype in (torch.float32, torch.float64) and not torch.compiler.is_compiling()


def attention(q: Tensor, k: Tensor, v: Tensor, pe: Tensor, mask: Tensor | None = None) -> Tensor:
    q, k = rotate(q, pe), rotate(k, pe)
    is_small = q.device.type == "cpu" and mask is None and k.shape[2] <= FEW_KEYS
    attended = attend_by_formula(q, k, v) if is_small else F.scaled_dot_product_attention(q, k, v, mask)
    return rearrange(attended, "B H L D -> B L (H D)")


def attend_by_formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Computes softmax(q k^T / sqrt(head_dim)) v, with scores in fp32 at least, whatever autocast says."""
    with torch.autocast(q.device.type, enabled=False):
        wide = torch.promote_types(q.dtype, torch.float32)
        scores = (q.to(wide) * q.shape[-1] ** -0.5) @ k.to(wide).mT
        return scores.softmax(-1).to(v.dtype) @ v


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = rearrange(qkv, "B L (K H D) -> K B H L D", K=3, H=heads)
    return q, k, v


def split_qkv_mlp(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Splits what a single block's first layer gives; the gradients of `split`, unlike those of slices, are not padded with zeros."""
    qkv, mlp = x.split((3 * dim, x.shape[-1] - 3 * dim), dim=-1)
    return qkv, mlp


def modulate(x: Tensor, mod: ModulationOut) -> Tensor:
    return (1 + mod.scale) * x + mod.shift
