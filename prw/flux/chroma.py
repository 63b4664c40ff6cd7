"""Chroma: FLUX.1's blocks, modulated by one small network. It runs in ComfyUI only; no model of our own stands here.

A source at timestep 0 is a second run of that network (`distilled_guidance_layer`), and of its rows those that modulate
pictures: those of the double blocks' image side and of the single blocks.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .flux1 import make_tokens
from .inputs import BlockModulation, SourceConditions
from .math import timestep_embedding

MARKS = ("double_blocks.0.img_attn.qkv.weight", "distilled_guidance_layer.in_proj.weight")
ROWS = 344
"""Vectors that the network gives for a timestep: all shifts, scales and gates of Chroma, one row each."""


def tokenize(flux: Any, latent: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Flattens a latent to tokens and gives their ids, which Chroma does in the middle of its forward."""
    return make_tokens(latent, len(flux.params.axes_dim))


def make_modulation_input(times: Tensor, guidance: Tensor) -> Tensor:
    """Makes what the network reads, (batch, rows, 64): each row the timestep, guidance and the row's number."""
    conditions = torch.cat([timestep_embedding(times, 16), timestep_embedding(guidance, 16)], dim=-1)
    numbers = timestep_embedding(torch.arange(ROWS, device=times.device), 32)
    batch = len(times)
    return torch.cat([conditions[:, None].expand(-1, ROWS, -1), numbers.expand(batch, -1, -1)], dim=-1)


def read_time(flux: Any, times: Tensor) -> tuple[nn.Module, Tensor]:
    """Returns the network and its input at these timesteps, without guidance."""
    return flux.distilled_guidance_layer, make_modulation_input(times, torch.zeros_like(times))


def modulate_source(flux: Any, conditions: SourceConditions, dtype: torch.dtype) -> BlockModulation:
    """Returns what modulates a source in each block of ComfyUI's Chroma; guidance None is 0, as the host's default."""
    times, _, guidance = conditions
    guidance = torch.zeros_like(times) if guidance is None else guidance
    vectors = flux.distilled_guidance_layer(make_modulation_input(times, guidance).to(dtype))

    def modulate(name: str, block: Any) -> tuple[Any, Any]:
        kind, number = name.split(".")
        if kind == "double_blocks":
            return flux.get_modulations(vectors, "double_img", idx=int(number))
        return flux.get_modulations(vectors, "single", idx=int(number)), None

    return modulate
