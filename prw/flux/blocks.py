"""What FLUX families share: the two kinds of blocks, in the public weights' names, and the way through them.

The blocks have the names and the `attn1_patch` hook of ComfyUI's own, so the source stream (weaving.py) runs on either
without knowing which. `img`, `txt`, `vec` and `pe` are FLUX's words: image tokens, text tokens, modulation vector,
rotary positions.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .layers import FLUX1_STYLE, BlockStyle, GatedSiLU, Linear, Modulation, QKNorm, SelfAttention, build_mlp
from .math import attention, modulate, split_heads, split_qkv_mlp

RUN_BLOCK = "run_block"
"""Key of transformer_options: the function that calls blocks, which training replaces by activation checkpointing."""
ATTENTION = "attention"
"""Key of transformer_options: a function in the place of math.attention, such as a host's own."""


def call_directly(function: Callable, *args: Any) -> Any:
    """Calls the function: how blocks run without checkpointing."""
    return function(*args)


def attention_with_patches(q: Tensor, k: Tensor, v: Tensor, pe: Tensor, options: dict) -> Tensor:
    """Computes attention between the host's two kinds of patches: `attn1_patch` changes what goes in, q and k before
    rotation, and `attn1_output_patch` what comes out.
    """
    mask, patches = None, options.get("patches", {})
    for patch in patches.get("attn1_patch", ()):
        out = patch(q, k, v, pe=pe, attn_mask=mask, extra_options=options)
        q, k, v = out.get("q", q), out.get("k", k), out.get("v", v)
        pe, mask = out.get("pe", pe), out.get("attn_mask", mask)
    attn = options.get(ATTENTION, attention)(q, k, v, pe, mask)
    for patch in patches.get("attn1_output_patch", ()):
        attn = patch(attn, options)
    return attn


class DoubleStreamBlock(nn.Module):
    """Image and text with weights of their own, joined in one attention."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, style: BlockStyle = FLUX1_STYLE):
        super().__init__()
        self.num_heads = num_heads
        self.hidden_size = dim
        self.modulation = style.modulation
        # each stream's MLP is made first: seeded weights depend on the order
        img_mlp = build_mlp(dim, int(dim * mlp_ratio), style)
        if style.modulation:
            self.img_mod = Modulation(dim, double=True)
        self.img_norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.img_attn = SelfAttention(dim, num_heads, style.bias)
        self.img_norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.img_mlp = img_mlp
        txt_mlp = build_mlp(dim, int(dim * mlp_ratio), style)
        if style.modulation:
            self.txt_mod = Modulation(dim, double=True)
        self.txt_norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.txt_attn = SelfAttention(dim, num_heads, style.bias)
        self.txt_norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.txt_mlp = txt_mlp

    def forward(self, img: Tensor, txt: Tensor, vec: Any, pe: Tensor, options: dict) -> tuple[Tensor, Tensor]:
        (img_mod1, img_mod2), (txt_mod1, txt_mod2) = (self.img_mod(vec), self.txt_mod(vec)) if self.modulation else vec

        img_qkv = split_heads(self.img_attn.qkv(modulate(self.img_norm1(img), img_mod1)), self.num_heads)
        txt_qkv = split_heads(self.txt_attn.qkv(modulate(self.txt_norm1(txt), txt_mod1)), self.num_heads)
        img_qk, txt_qk = self.img_attn.norm(*img_qkv), self.txt_attn.norm(*txt_qkv)

        q, k = (torch.cat(pair, dim=2) for pair in zip(txt_qk, img_qk, strict=True))
        v = torch.cat((txt_qkv[2], img_qkv[2]), dim=2)
        attn = attention_with_patches(q, k, v, pe, options | {"img_slice": [txt.shape[1], q.shape[2]]})
        txt_attn, img_attn = attn[:, : txt.shape[1]], attn[:, txt.shape[1] :]

        img = img + img_mod1.gate * self.img_attn.proj(img_attn)
        img = img + img_mod2.gate * self.img_mlp(modulate(self.img_norm2(img), img_mod2))
        txt = txt + txt_mod1.gate * self.txt_attn.proj(txt_attn)
        txt = txt + txt_mod2.gate * self.txt_mlp(modulate(self.txt_norm2(txt), txt_mod2))
        return img, txt


class SingleStreamBlock(nn.Module):
    """Text and image in one sequence; attention and MLP side by side."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, style: BlockStyle = FLUX1_STYLE):
        super().__init__()
        self.num_heads = num_heads
        self.hidden_size = dim
        hidden = int(dim * mlp_ratio)
        self.linear1 = Linear(dim, dim * 3 + hidden * (2 if style.gated else 1), style.bias)
        self.linear2 = Linear(dim + hidden, dim, style.bias)
        self.norm = QKNorm(dim // num_heads)
        self.pre_norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.mlp_act = GatedSiLU() if style.gated else nn.GELU("tanh")
        self.modulation = Modulation(dim, double=False) if style.modulation else None

    def forward(self, x: Tensor, vec: Any, pe: Tensor, options: dict) -> Tensor:
        mod = vec if self.modulation is None else self.modulation(vec)[0]
        qkv, mlp = split_qkv_mlp(self.linear1(modulate(self.pre_norm(x), mod)), self.hidden_size)
        q, k, v = split_heads(qkv, self.num_heads)
        q, k = self.norm(q, k, v)
        attn = attention_with_patches(q, k, v, pe, options)
        return x + mod.gate * self.linear2(torch.cat((attn, self.mlp_act(mlp)), dim=-1))


class BlockInputs(NamedTuple):
    """What the first block gets."""

    img: Tensor
    txt: Tensor
    vecs: tuple[Any, Any]
    """What double and single blocks get as `vec`."""
    pe: Tensor


class FluxModel(nn.Module):
    """What all families have, ComfyUI's own models as well."""

    params: Any
    patch_size: int
    """Latents along a token's side."""
    in_channels: int
    """Width of a token before img_in."""
    img_in: nn.Module
    time_in: nn.Module
    guidance_in: nn.Module
    double_blocks: nn.ModuleList
    single_blocks: nn.ModuleList
    final_layer: nn.Module

    def process_img(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Flattens a latent to tokens (batch, tokens, channels) and gives their ids (batch, tokens, axes)."""
        raise NotImplementedError

    def embed(
        self, tokens: Tensor, ids: Tensor, timestep: Tensor, context: Tensor, guidance: Tensor | None = None
    ) -> tuple[Tensor, BlockInputs]:
        """Embeds time and guidance as a vector; gives that, and what the first block gets of image tokens with these
        ids and of the prompt.

        Only models of our own have it, of families that whole models are trained for.
        """
        raise NotImplementedError


def run_blocks(flux: FluxModel, inputs: BlockInputs, options: dict) -> Tensor:
    """Gives image tokens after all blocks."""
    img = inputs.img
    for step in step_blocks(flux, inputs, options):
        img = step[1]
    return img


def step_blocks(flux: FluxModel, inputs: BlockInputs, options: dict) -> Iterator[tuple[str, Tensor]]:
    """Runs the blocks one by one, and yields each one's name and the image tokens behind it."""
    img, txt, vecs, pe = inputs
    run = options.pop(RUN_BLOCK, call_directly)
    for i, block in enumerate(flux.double_blocks):
        img, txt = run(block, img, txt, vecs[0], pe, options | {"block_type": "double", "block_index": i})
        yield f"double_blocks.{i}", img
    tokens = torch.cat((txt, img), dim=1)
    options["img_slice"] = [txt.shape[1], tokens.shape[1]]
    for i, block in enumerate(flux.single_blocks):
        tokens = run(block, tokens, vecs[1], pe, options | {"block_type": "single", "block_index": i})
        yield f"single_blocks.{i}", tokens[:, txt.shape[1] :]
