"""FSDP2 for the frozen base, block by block: every process keeps a share of each block and gathers it for its turn.

Experts and routers stay whole in every process. Blocks come only when all processes ask for them, so all must run as many
passes: match_passes.
"""

import warnings
from collections.abc import Callable

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from ...prw.flux.blocks import call_directly
from ...prw.weaving import BLOCK_CONTEXT, named_blocks
from . import ranks


def shard_blocks(flux: nn.Module, device: str) -> None:
    """Shards the blocks in place; what is no block stays whole."""
    # keys and values are views, and nobody writes into them
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(torch.device(device).type, (ranks.world_size(),))
    for _, block in named_blocks(flux):
        # blocks have no root above them: the source's pass begins at a block, not at FLUX's forward
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
        setattr(block, BLOCK_CONTEXT, call_directly)
        register_fsdp_forward_method(block, BLOCK_CONTEXT)


def match_passes(passes: int, run: Callable[[], object], device: torch.device) -> None:
    """Calls `run` until this process has made as many passes, with its own to come, as the one that makes most."""
    for _ in range(ranks.max_over_ranks(passes, device) - passes):
        run()
