"""Where and how the frozen base is kept: on the device as it is, in fewer bits, shared out over processes, or in host memory."""

from torch import nn

from ...prw.weaving import named_blocks
from ..checkpoint.checkpoints import TrainingError
from ..distributed import ranks
from ..distributed.fsdp import shard_blocks
from ..recipes.curriculum import Settings
from .compile import compile_blocks
from .memory import find_free_memory, format_bytes
from .offload import offload_blocks
from .quantize import FORMATS, quantize_blocks


def place_base(flux: nn.Module, settings: Settings, device: str) -> None:
    """Places the base for training as the recipe says, in place; its weights may lie in a file until now."""
    if settings.base_weights != "plain":
        quantize_blocks(flux, settings.base_weights, device)
    check_base_size(flux, settings, device, find_free_memory(device))
    if ranks.is_sharded(settings):
        shard_blocks(flux, device)
    if settings.offload:
        offload_blocks(flux, device)
    else:
        flux.to(device)
    if settings.compile:
        compile_blocks(flux)


def check_base_size(flux: nn.Module, settings: Settings, device: str, free: int | None) -> None:
    """Checks that the base fits before it goes to the device; `free` None: nobody can tell."""
    whole, sharing = (
        sum(parameter.nbytes for parameter in flux.parameters()),
        ranks.world_size() if settings.shard else 1,
    )
    size = whole // sharing
    if settings.offload:
        size -= sum(parameter.nbytes for _, block in named_blocks(flux) for parameter in block.parameters())
    if free is None or size <= free:
        return
    advice = []
    if not settings.shard and whole // ranks.world_size() <= free:
        advice.append(f"set shard = true: {ranks.world_size()} processes then share it")
    numbers = sum(parameter.numel() for parameter in flux.parameters()) // sharing
    fitting = [kind for kind, form in FORMATS.items() if numbers * form.bytes <= free]
    if fitting and settings.base_weights == "plain":
        advice.append(f'set base_weights = "{fitting[0]}"')
    if not settings.shard and not settings.offload:
        advice.append("set offload = true, which takes longer")
    raise TrainingError(
        f"The base takes {format_bytes(size)}, {device} has {format_bytes(free)} free: "
        f"{', or '.join(advice or ['start more processes, with shard = true, or take a larger device'])}."
    )
