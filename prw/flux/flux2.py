"""FLUX.2 (klein, dev) in the public weights' key layout.

Against FLUX.1: one modulation for all blocks of a kind, no pooled prompt, no biases, a gated MLP, four position axes,
128 latent channels of 16 x 16 pixels. Its blocks are FLUX.1's in another style (blocks.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from .blocks import BlockInputs, DoubleStreamBlock, FluxModel, SingleStreamBlock, run_blocks
from .inputs import BlockModulation, SourceConditions
from .layers import BlockStyle, LastLayer, Linear, MLPEmbedder, Modulation
from .math import rotary, timestep_embedding
from .shapes import check_heads, read_common_params

STYLE = BlockStyle(bias=False, modulation=False, gated=True)


@dataclass(frozen=True)
class Flux2Params:
    """The shape of a FLUX.2; the defaults are klein 4B's."""

    in_channels: int = 128
    out_channels: int = 128
    context_in_dim: int = 7680
    hidden_size: int = 3072
    mlp_ratio: float = 3.0
    num_heads: int = 24
    depth: int = 5
    """Double-stream blocks."""
    depth_single_blocks: int = 20
    axes_dim: tuple[int, ...] = (32, 32, 32, 32)
    theta: int = 2000
    guidance_embed: bool = False
    """True for dev, False for klein."""

    def __post_init__(self):
        check_heads(self.hidden_size, self.num_heads, self.axes_dim)


MARKS = ("double_blocks.0.img_attn.qkv.weight", "double_stream_modulation_img.lin.weight")
READ = ("img_in.weight", "txt_in.weight", "final_layer.linear.weight", "double_blocks.0.img_mlp.2.weight")


def read_params(shapes: Mapping[str, tuple[int, ...]]) -> Flux2Params:
    """Reads a FLUX.2's shape off the shapes of its weights."""
    common = read_common_params(shapes, Flux2Params.axes_dim)
    return Flux2Params(
        **common,
        mlp_ratio=shapes["double_blocks.0.img_mlp.2.weight"][1] / common["hidden_size"],
    )


SHIFT_OF_10, SHIFT_OF_200 = (8.73809524e-5, 1.89833333), (0.00016927, 0.45666666)
"""Slope and start of the lines that mu follows, over tokens, in 10 and in 200 sampler steps."""
MAX_TOKENS = 4300
"""Of pictures with more, mu is that of 200 steps."""


def time_shift(steps: int, tokens: int) -> float:
    """Returns mu, by which timesteps are shifted: it grows with the tokens and falls with the steps."""
    few, many = (slope * tokens + start for slope, start in (SHIFT_OF_10, SHIFT_OF_200))
    return many if tokens > MAX_TOKENS else few + (many - few) * (steps - 10) / (200 - 10)


class Flux2(FluxModel):
    """Predicts the velocity of a latent picture (batch, 128, height, width)."""

    patch_size = 1

    def __init__(self, params: Flux2Params):
        super().__init__()
        self.params = params
        dim = params.hidden_size
        self.in_channels = params.in_channels
        self.img_in = Linear(params.in_channels, dim, bias=False)
        self.time_in = MLPEmbedder(256, dim, bias=False)
        self.guidance_in = MLPEmbedder(256, dim, bias=False) if params.guidance_embed else nn.Identity()
        self.txt_in = Linear(params.context_in_dim, dim, bias=False)
        shape = (dim, params.num_heads, params.mlp_ratio, STYLE)
        self.double_blocks = nn.ModuleList(DoubleStreamBlock(*shape) for _ in range(params.depth))
        self.single_blocks = nn.ModuleList(SingleStreamBlock(*shape) for _ in range(params.depth_single_blocks))
        self.final_layer = LastLayer(dim, params.out_channels, bias=False)
        self.double_stream_modulation_img = Modulation(dim, double=True, bias=False)
        self.double_stream_modulation_txt = Modulation(dim, double=True, bias=False)
        self.single_stream_modulation = Modulation(dim, double=False, bias=False)

    def process_img(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Flattens a latent to tokens and gives their positions (0, row, column, 0)."""
        ids = torch.zeros(*x.shape[-2:], len(self.params.axes_dim), device=x.device)
        ids[..., 1] = torch.arange(x.shape[-2], device=x.device)[:, None]
        ids[..., 2] = torch.arange(x.shape[-1], device=x.device)
        return rearrange(x, "b c h w -> b (h w) c"), rearrange(ids, "h w c -> 1 (h w) c").expand(len(x), -1, -1)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        y: Tensor | None = None,
        guidance: Tensor | None = None,
        transformer_options: dict[str, Any] | None = None,
    ) -> Tensor:
        """`y`, FLUX.1's pooled prompt, is taken and ignored, as ComfyUI's FLUX.2 does."""
        tokens, ids = self.process_img(x)
        vec, inputs = self.embed(tokens, ids, timestep, context, guidance)
        img = run_blocks(self, inputs, dict(transformer_options or {}))
        return rearrange(self.final_layer(img, vec), "b (h w) c -> b c h w", h=x.shape[-2])

    def embed(
        self, tokens: Tensor, ids: Tensor, timestep: Tensor, context: Tensor, guidance: Tensor | None = None
    ) -> tuple[Tensor, BlockInputs]:
        txt_ids = ids.new_zeros(len(ids), context.shape[1], ids.shape[-1])
        txt_ids[..., 3] = torch.arange(context.shape[1], device=ids.device)
        pe = rotary(torch.cat((txt_ids, ids), dim=1), self.params.axes_dim, self.params.theta)

        img, txt = self.img_in(tokens), self.txt_in(context)
        vec = self.time_in(timestep_embedding(timestep).to(img))
        if self.params.guidance_embed and guidance is not None:
            vec = vec + self.guidance_in(timestep_embedding(guidance).to(img))

        double = self.double_stream_modulation_img(vec), self.double_stream_modulation_txt(vec)
        return vec, BlockInputs(img, txt, (double, self.single_stream_modulation(vec)[0]), pe)


def modulate_source(flux: Any, conditions: SourceConditions, dtype: torch.dtype) -> BlockModulation:
    """Returns what modulates a source in each block of a FLUX.2, ours or ComfyUI's: the same in all of a kind."""
    vec = flux.time_in(timestep_embedding(conditions.times).to(dtype))
    if flux.params.guidance_embed and conditions.guidance is not None:
        vec = vec + flux.guidance_in(timestep_embedding(conditions.guidance).to(dtype))
    double, single = flux.double_stream_modulation_img(vec), flux.single_stream_modulation(vec)
    return lambda name, block: double if name.startswith("double") else single
