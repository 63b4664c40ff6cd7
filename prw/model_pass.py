"""A whole model's pass: a second FLUX runs once over a prompt and pictures at timestep 0, and every block's K and V are kept.

Text and pictures attend to each other, and the text stream is modulated as well. Weights are used where they lie: each
block is brought to the device for as long as it runs, so that a model of 8 GB asks for the memory of one block.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .flux.blocks import ATTENTION, RUN_BLOCK, BlockInputs, FluxModel, step_blocks
from .positions import Grid
from .router import Route
from .source import Routing
from .source_pass import Host, SourcePicture, make_source_ids
from .weaving import BlockKV, clamp_fp16

BLOCKS = ("double_blocks", "single_blocks")


def run_model_pass(
    host: Host, flux: FluxModel, prompt: Tensor, pictures: Sequence[SourcePicture], routing: Routing, target: Grid
) -> tuple[Iterator[BlockKV], Tensor]:
    """Gives K and V of the prompt's rows and the pictures' tokens behind them, block by block, and their rotary
    positions.

    `flux` is used up: its weights are dropped as they have been used.
    """
    batch, position = len(prompt), routing.choose_position("reference")
    ids = make_source_ids(flux, pictures, target, position, routing.shift).expand(batch, -1, -1).to(host.device)
    tokens = torch.cat([flux.process_img(picture.latent)[0] for picture in pictures], dim=1)
    outside = list_outside_layers(flux)
    outside.to(host.device)
    _, inputs = flux.embed(tokens, ids, torch.zeros(batch, device=host.device), prompt)
    outside.to("meta")
    count = len(flux.double_blocks) + len(flux.single_blocks)
    return host.watch(run_model_stream(host, flux, inputs), count), inputs.pe


def run_model_stream(host: Host, flux: FluxModel, inputs: BlockInputs) -> Iterator[BlockKV]:
    """Runs a model's blocks and yields each one's keys, before rotation, and values."""
    recorded: list[tuple[Tensor, Tensor]] = []

    def record(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> dict:
        recorded.append((k, v))
        return {}

    options = {
        "patches": {"attn1_patch": [record]},
        RUN_BLOCK: partial(run_block_on, host.device),
        ATTENTION: lambda q, k, v, pe, mask: host.make_attention(pe)(q, k, v),
    }
    for name, img in step_blocks(flux, inputs, options):
        zeros = torch.zeros(len(img), dtype=torch.long, device=img.device)
        yield BlockKV(name, *recorded.pop(), Route(zeros, zeros.float(), zeros.float()[:, None]))


def run_block_on(device: torch.device, block: nn.Module, *args: Any) -> Any:
    """Calls a block with its weights on a device, and drops them."""
    out = block.to(device)(*args)
    block.to("meta")
    return tuple(map(clamp_fp16, out)) if isinstance(out, tuple) else clamp_fp16(out)


def measure_largest_block(flux: FluxModel) -> int:
    """Measures bytes of the weights that lie on the device at once, at most: those of one block,
    or of all outside them."""
    return max(map(_measure, [list_outside_layers(flux), *flux.double_blocks, *flux.single_blocks]))


def list_outside_layers(flux: FluxModel) -> nn.ModuleList:
    """Lists the layers outside the blocks."""
    return nn.ModuleList(layer for name, layer in flux.named_children() if name not in BLOCKS)


def _measure(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())
