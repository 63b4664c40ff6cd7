"""Where the frozen base rests: on the device as a whole, or shared out over processes."""

from torch import nn

from . import ranks
from .curriculum import Settings
from .forward import compile_blocks
from .memory import free_on, refuse_large_base
from .shards import shard_blocks


def settle(flux: nn.Module, settings: Settings, device: str) -> None:
    """In place, for training: the base may lie in a file until now."""
    refuse_large_base(flux, settings, device, free_on(device))
    if ranks.sharing(settings):
        shard_blocks(flux, device)
    flux.to(device)
    if settings.compile:
        compile_blocks(flux)
