"""FLUX.1 in the public weights' key layout, small enough to read beside the paper.

It has the block names and the `attn1_patch` hook of ComfyUI's own FLUX, so the source stream
(weaving.py) runs on either without knowing which. `img`, `txt`, `vec` and `pe` are FLUX's words:
image tokens, text tokens, modulation vector, rotary positions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .math import ModulationOut, attention, modulate, rotary, split_heads, timestep_embedding

RUN_BLOCK = "run_block"
"""An option: how blocks are called, so that training can give up their activations."""


def straight(call: Callable, *args):
    return call(*args)


@dataclass(frozen=True)
class FluxParams:
    """The shape of a FLUX.1; the defaults are FLUX.1-dev's."""

    in_channels: int = 64
    """Width of img_in: 64 for dev and schnell, 128 for control models, 384 for Fill."""
    out_channels: int = 64
    vec_in_dim: int = 768
    context_in_dim: int = 4096
    hidden_size: int = 3072
    mlp_ratio: float = 4.0
    num_heads: int = 24
    depth: int = 19
    """Double-stream blocks."""
    depth_single_blocks: int = 38
    axes_dim: tuple[int, ...] = (16, 56, 56)
    theta: int = 10_000
    guidance_embed: bool = True
    """True for dev and what is distilled from it, False for schnell."""

    def __post_init__(self):
        if self.hidden_size != self.num_heads * sum(self.axes_dim):
            raise ValueError(
                f"hidden_size is {self.hidden_size}, expected num_heads x sum(axes_dim) = "
                f"{self.num_heads} x {sum(self.axes_dim)}; change one of the three."
            )


class Linear(nn.Linear):
    """Casts its weight to the input's dtype: fp8 files then run in bf16, everything else unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


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


class SelfAttention(nn.Module):
    """The projections of one stream of a double block; attention itself is joint."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.qkv = Linear(dim, dim * 3)
        self.norm = QKNorm(dim // num_heads)
        self.proj = Linear(dim, dim)


class MLPEmbedder(nn.Module):
    def __init__(self, in_dim: int, hidden_dim: int):
        super().__init__()
        self.in_layer = Linear(in_dim, hidden_dim)
        self.out_layer = Linear(hidden_dim, hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


class Modulation(nn.Module):
    def __init__(self, dim: int, double: bool):
        super().__init__()
        self.is_double = double
        self.lin = Linear(dim, (6 if double else 3) * dim)

    def forward(self, vec: Tensor) -> tuple[ModulationOut, ModulationOut | None]:
        out = self.lin(F.silu(vec))[:, None, :].chunk(6 if self.is_double else 3, dim=-1)
        return ModulationOut(*out[:3]), ModulationOut(*out[3:]) if self.is_double else None


def hooked(q: Tensor, k: Tensor, v: Tensor, pe: Tensor, options: dict) -> Tensor:
    """Attention after the host's `attn1_patch` hooks had their say, q and k before rotation, and before those of its
    output."""
    mask, patches = None, options.get("patches", {})
    for patch in patches.get("attn1_patch", ()):
        out = patch(q, k, v, pe=pe, attn_mask=mask, extra_options=options)
        q, k, v = out.get("q", q), out.get("k", k), out.get("v", v)
        pe, mask = out.get("pe", pe), out.get("attn_mask", mask)
    attn = attention(q, k, v, pe, mask)
    for patch in patches.get("attn1_output_patch", ()):
        attn = patch(attn, options)
    return attn


class DoubleStreamBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int, mlp_ratio: float):
        super().__init__()
        self.num_heads = num_heads
        self.hidden_size = dim
        for stream in ("img", "txt"):
            mlp = [Linear(dim, int(dim * mlp_ratio)), nn.GELU("tanh"), Linear(int(dim * mlp_ratio), dim)]
            self.add_module(f"{stream}_mod", Modulation(dim, double=True))
            self.add_module(f"{stream}_norm1", nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6))
            self.add_module(f"{stream}_attn", SelfAttention(dim, num_heads))
            self.add_module(f"{stream}_norm2", nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6))
            self.add_module(f"{stream}_mlp", nn.Sequential(*mlp))

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor, pe: Tensor, options: dict):
        img_mod1, img_mod2 = self.img_mod(vec)
        txt_mod1, txt_mod2 = self.txt_mod(vec)

        img_qkv = split_heads(self.img_attn.qkv(modulate(self.img_norm1(img), img_mod1)), self.num_heads)
        txt_qkv = split_heads(self.txt_attn.qkv(modulate(self.txt_norm1(txt), txt_mod1)), self.num_heads)
        img_qk, txt_qk = self.img_attn.norm(*img_qkv), self.txt_attn.norm(*txt_qkv)

        q, k = (torch.cat(pair, dim=2) for pair in zip(txt_qk, img_qk, strict=True))
        v = torch.cat((txt_qkv[2], img_qkv[2]), dim=2)
        attn = hooked(q, k, v, pe, options | {"img_slice": [txt.shape[1], q.shape[2]]})
        txt_attn, img_attn = attn[:, : txt.shape[1]], attn[:, txt.shape[1] :]

        img = img + img_mod1.gate * self.img_attn.proj(img_attn)
        img = img + img_mod2.gate * self.img_mlp(modulate(self.img_norm2(img), img_mod2))
        txt = txt + txt_mod1.gate * self.txt_attn.proj(txt_attn)
        txt = txt + txt_mod2.gate * self.txt_mlp(modulate(self.txt_norm2(txt), txt_mod2))
        return img, txt


class SingleStreamBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int, mlp_ratio: float):
        super().__init__()
        self.num_heads = num_heads
        self.hidden_size = dim
        self.linear1 = Linear(dim, dim * 3 + int(dim * mlp_ratio))
        self.linear2 = Linear(dim + int(dim * mlp_ratio), dim)
        self.norm = QKNorm(dim // num_heads)
        self.pre_norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.mlp_act = nn.GELU("tanh")
        self.modulation = Modulation(dim, double=False)

    def forward(self, x: Tensor, vec: Tensor, pe: Tensor, options: dict) -> Tensor:
        mod, _ = self.modulation(vec)
        qkv, mlp = self.linear1(modulate(self.pre_norm(x), mod)).tensor_split([3 * self.hidden_size], -1)
        q, k, v = split_heads(qkv, self.num_heads)
        attn = hooked(*self.norm(q, k, v), v, pe, options)
        return x + mod.gate * self.linear2(torch.cat((attn, self.mlp_act(mlp)), dim=-1))


class LastLayer(nn.Module):
    def __init__(self, dim: int, out_channels: int):
        super().__init__()
        self.norm_final = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.linear = Linear(dim, out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(dim, 2 * dim))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec)[:, None, :].chunk(2, dim=-1)
        return self.linear((1 + scale) * self.norm_final(x) + shift)


class Flux(nn.Module):
    """Predicts the velocity of a latent picture (batch, 16, height, width)."""

    patch_size = 2

    def __init__(self, params: FluxParams):
        super().__init__()
        self.params = params
        dim = params.hidden_size
        self.in_channels = params.in_channels
        self.img_in = Linear(params.in_channels, dim)
        self.time_in = MLPEmbedder(256, dim)
        self.vector_in = MLPEmbedder(params.vec_in_dim, dim)
        self.guidance_in = MLPEmbedder(256, dim) if params.guidance_embed else nn.Identity()
        self.txt_in = Linear(params.context_in_dim, dim)
        shape = (dim, params.num_heads, params.mlp_ratio)
        self.double_blocks = nn.ModuleList(DoubleStreamBlock(*shape) for _ in range(params.depth))
        self.single_blocks = nn.ModuleList(SingleStreamBlock(*shape) for _ in range(params.depth_single_blocks))
        self.final_layer = LastLayer(dim, params.out_channels)

    def process_img(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to tokens and their positions; odd sizes are padded by wrapping round."""
        height, width = x.shape[-2:]
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="circular")
        tokens = rearrange(x, "b c (h ph) (w pw) -> b (h w) (c ph pw)", ph=2, pw=2)
        rows, columns = x.shape[-2] // 2, x.shape[-1] // 2
        grid = torch.zeros(rows, columns, len(self.params.axes_dim), device=x.device)
        grid[..., 1] = torch.arange(rows, device=x.device)[:, None]
        grid[..., 2] = torch.arange(columns, device=x.device)
        return tokens, rearrange(grid, "h w c -> 1 (h w) c").expand(len(x), -1, -1)

    def forward(self, x, timestep, context, y, guidance=None, transformer_options=None) -> Tensor:
        options = dict(transformer_options or {})
        img, img_ids = self.process_img(x)
        txt_ids = img_ids.new_zeros(len(x), context.shape[1], img_ids.shape[-1])
        pe = rotary(torch.cat((txt_ids, img_ids), dim=1), self.params.axes_dim, self.params.theta)

        img, txt = self.img_in(img), self.txt_in(context)
        vec = self.time_in(timestep_embedding(timestep).to(img)) + self.vector_in(y)
        if self.params.guidance_embed and guidance is not None:
            vec = vec + self.guidance_in(timestep_embedding(guidance).to(img))

        run = options.pop(RUN_BLOCK, straight)
        for i, block in enumerate(self.double_blocks):
            img, txt = run(block, img, txt, vec, pe, options | {"block_type": "double", "block_index": i})
        img = torch.cat((txt, img), dim=1)
        options["img_slice"] = [txt.shape[1], img.shape[1]]
        for i, block in enumerate(self.single_blocks):
            img = run(block, img, vec, pe, options | {"block_type": "single", "block_index": i})
        out = self.final_layer(img[:, txt.shape[1] :], vec)

        rows = (x.shape[-2] + 1) // 2
        out = rearrange(out, "b (h w) (c ph pw) -> b c (h ph) (w pw)", h=rows, ph=2, pw=2)
        return out[..., : x.shape[-2], : x.shape[-1]]
