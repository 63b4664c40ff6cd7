"""FLUX.1 in the public weights' key layout, small enough to read beside the paper.

Its blocks are in blocks.py, their layers in layers.py, its formulas in math.py.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .blocks import BlockInputs, DoubleStreamBlock, FluxModel, SingleStreamBlock, run_blocks
from .inputs import BlockModulation, SourceConditions
from .layers import LastLayer, Linear, MLPEmbedder
from .math import rotary, timestep_embedding
from .shapes import check_heads, read_common_params


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
        check_heads(self.hidden_size, self.num_heads, self.axes_dim)


LATENT_SCALE, LATENT_SHIFT = 0.3611, 0.1159
"""The VAE's latents are shifted and scaled to about unit size."""
MARKS = ("double_blocks.0.img_attn.qkv.weight", "vector_in.in_layer.weight")
READ = (
    "img_in.weight",
    "txt_in.weight",
    "final_layer.linear.weight",
    "vector_in.in_layer.weight",
    "double_blocks.0.img_mlp.0.weight",
)


def read_params(shapes: Mapping[str, tuple[int, ...]]) -> FluxParams:
    """Reads a FLUX.1's shape off the shapes of its weights."""
    common = read_common_params(shapes, FluxParams.axes_dim)
    return FluxParams(
        **common,
        vec_in_dim=shapes["vector_in.in_layer.weight"][1],
        mlp_ratio=shapes["double_blocks.0.img_mlp.0.weight"][0] / common["hidden_size"],
    )


def time_shift(steps: int, tokens: int) -> float:
    """Returns mu, by which timesteps are shifted: it grows linearly from 0.5 at 256 tokens to 1.15 at 4096."""
    return 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)


def make_tokens(x: Tensor, axes: int, step: float = 1.0) -> tuple[Tensor, Tensor]:
    """Flattens 2 x 2 latents to a token each and gives their positions, `step` apart; odd sizes are padded by wrapping round."""
    height, width = x.shape[-2:]
    x = F.pad(x, (0, width % 2, 0, height % 2), mode="circular")
    tokens = rearrange(x, "b c (h ph) (w pw) -> b (h w) (c ph pw)", ph=2, pw=2)
    rows, columns = x.shape[-2] // 2, x.shape[-1] // 2
    grid = torch.zeros(rows, columns, axes, device=x.device)
    grid[..., 1] = place_tokens(rows, step, x.device)[:, None]
    grid[..., 2] = place_tokens(columns, step, x.device)
    return tokens, rearrange(grid, "h w c -> 1 (h w) c").expand(len(x), -1, -1)


def place_tokens(count: int, step: float, device: torch.device) -> Tensor:
    """Places along one axis: from 0 on, or closer together, the outer edges then where those of a smaller picture are."""
    counted = torch.arange(count, device=device)
    return counted if step == 1 else (counted + 0.5) * step - 0.5


class Flux(FluxModel):
    """Predicts the velocity of a latent picture (batch, 16, height, width)."""

    patch_size = 2
    position_step = 1.0
    """Below 1 the tokens of a picture that is larger than those of training lie where a smaller one's do, closer together."""

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
        """Turns a latent into tokens and their positions."""
        return make_tokens(x, len(self.params.axes_dim), self.position_step)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        y: Tensor,
        guidance: Tensor | None = None,
        transformer_options: dict[str, Any] | None = None,
    ) -> Tensor:
        options = dict(transformer_options or {})
        img, img_ids = self.process_img(x)
        txt_ids = img_ids.new_zeros(len(x), context.shape[1], img_ids.shape[-1])
        pe = rotary(torch.cat((txt_ids, img_ids), dim=1), self.params.axes_dim, self.params.theta)

        img, txt = self.img_in(img), self.txt_in(context)
        vec = self.time_in(timestep_embedding(timestep).to(img)) + self.vector_in(y)
        if self.params.guidance_embed and guidance is not None:
            vec = vec + self.guidance_in(timestep_embedding(guidance).to(img))

        out = self.final_layer(run_blocks(self, BlockInputs(img, txt, (vec, vec), pe), options), vec)

        rows = (x.shape[-2] + 1) // 2
        out = rearrange(out, "b (h w) (c ph pw) -> b c (h ph) (w pw)", h=rows, ph=2, pw=2)
        return out[..., : x.shape[-2], : x.shape[-1]]


def stretch_positions(flux: Flux, step: float) -> Flux:
    """Stretches the same model with the same weights, its pictures' tokens `step` apart."""
    stretched = copy(flux)
    stretched.position_step = step
    return stretched


def modulate_source(flux: Any, conditions: SourceConditions, dtype: torch.dtype) -> BlockModulation:
    """Returns what modulates a source in each block of a FLUX.1, ours or ComfyUI's."""
    times, pooled, guidance = conditions
    if pooled is None:
        pooled = times.new_zeros(len(times), flux.params.vec_in_dim)
    pooled = pooled[:, : flux.params.vec_in_dim].to(times.device, dtype)
    vec = flux.time_in(timestep_embedding(times).to(dtype)) + flux.vector_in(pooled)
    if flux.params.guidance_embed and guidance is not None:
        vec = vec + flux.guidance_in(timestep_embedding(guidance).to(dtype))
    return lambda name, block: block.img_mod(vec) if name.startswith("double") else block.modulation(vec)
