"""How the frozen base rests: on the device as it is, in fewer bits, shared out over processes, or in host memory."""

from torch import nn

from . import ranks
from .curriculum import Settings
from .forward import compile_blocks
from .memory import free_on, refuse_large_base
from .narrow import narrow_blocks
from .shards import shard_blocks
from .visits import let_blocks_visit


def settle(flux: nn.Module, settings: Settings, device: str) -> None:
    """In place, for training: the base may lie in a file until now."""
    if settings.base_weights != "plain":
        narrow_blocks(flux, settings.base_weights, device)
    refuse_large_base(flux, settings, device, free_on(device))
    if ranks.sharing(settings):
        shard_blocks(flux, device)
    if settings.offload:
        let_blocks_visit(flux, device)
    else:
        flux.to(device)
    if settings.compile:
        compile_blocks(flux)
