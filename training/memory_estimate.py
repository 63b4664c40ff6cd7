"""What memory a stage takes on its device, estimated before its first iteration: what cannot fit is refused then.

Weights, gradients and optimizer are counted to the byte, activations from the number of tokens: what autograd keeps
grows with tokens x width x blocks (by how much was measured: docs/scale.md).
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..prw.flux.blocks import FluxModel
from ..prw.flux.families import find_model_family
from ..prw.weaving import named_blocks
from .base.memory import find_free_memory, format_bytes
from .base.offload import RESIDENT_BLOCKS, OffloadedLinear
from .batch import Batch
from .checkpoint.checkpoints import TrainingError
from .distributed import ranks
from .listener import Listener
from .stage_trainer import StageTrainer
from .trainer import Trainer

KEPT, KEPT_OF_MLP = 8, 2
"""Activations that a block keeps for its gradient, in widths a token: besides its MLP, and for each of its first layer's rows."""
CHECKPOINTED, CHECKPOINTED_ONCE = 3.5, 15
"""The same with checkpointing: between blocks (what they are given, the source's keys and values and those' gradients), and
within the one that computes."""
STATES = {"adamw": 2, "prodigy": 4}
"""Tensors of an optimizer for each that is trained."""


class MemoryEstimate(NamedTuple):
    """What a stage takes, in bytes."""

    base: dict[str, int]
    """The frozen FLUX, by type of number: what this process holds of it between two blocks."""
    streamed: int
    """What comes only while the largest blocks compute."""
    trained: int
    """Expert and router, and their running average."""
    gradients: int
    optimizer: int
    batch: int
    activations: int
    """Bytes of one forward and backward, with checkpointing or without as settings say."""
    checkpointed: int
    """The same with checkpointing."""

    @property
    def additional(self) -> int:
        """What is not on the device yet when a stage begins."""
        return self.streamed + self.gradients + self.optimizer + self.batch + self.activations

    def format_table(self) -> str:
        base = {f"base, {kind}": size for kind, size in self.base.items()}
        base |= {"base, a block's turn": self.streamed} if self.streamed else {}
        parts = {"expert and router": self.trained, "gradients": self.gradients, "optimizer": self.optimizer}
        moving = {"batch": self.batch, "activations, about": self.activations}
        rows = {**base, **parts, **moving, "in all": sum(self.base.values()) + self.trained + self.additional}
        return "\n".join(f"  {name:<20}{format_bytes(size):>10}" for name, size in rows.items())


def estimate_memory(trainer: StageTrainer) -> MemoryEstimate:
    """Estimates what the next iteration takes."""
    base, flux = Counter(), trainer.host.flux
    offloaded = {p for layer in flux.modules() if isinstance(layer, OffloadedLinear) for p in layer.parameters()}
    for parameter in flux.parameters():
        if parameter not in offloaded:
            base[str(parameter.dtype).removeprefix("torch.")] += count_local_bytes(parameter)
    blocks = [block.parameters() for _, block in named_blocks(flux)]
    streamed = max(
        sum(RESIDENT_BLOCKS * p.nbytes if p in offloaded else p.nbytes - count_local_bytes(p) for p in block)
        for block in blocks
    )
    trained = sum(tensor.nbytes for tensor in trainer.trained.values())
    batches = trainer.draw_batches()
    kept, checkpointed = (
        max(_count_activations(trainer, batch, twice) for batch in batches) for twice in (False, True)
    )
    return MemoryEstimate(
        dict(base),
        streamed,
        trained * (2 if trainer.weights.average else 1),
        trained,
        trained * STATES[trainer.settings.optimizer],
        max(sum(part.nbytes for part in batch if isinstance(part, Tensor)) for batch in batches),
        checkpointed if trainer.checkpointing_options else kept,
        checkpointed,
    )


def count_local_bytes(parameter: Tensor) -> int:
    """Counts the bytes of a parameter that lie in this process."""
    return parameter.to_local().nbytes if isinstance(parameter, DTensor) else parameter.nbytes


def _count_activations(trainer: StageTrainer, batch: Batch, twice: bool) -> int:
    host = trainer.host
    pictures = sum(part.shape[-2] * part.shape[-1] // host.flux.patch_size**2 for part in (batch.target, batch.source))
    return estimate_activations(host.flux, len(batch.ids) * (pictures + batch.context.shape[1]), host.dtype, twice)


def estimate_activations(flux: FluxModel, tokens: int, dtype: torch.dtype, twice: bool) -> int:
    """Estimates activations of all samples' `tokens`: text, picture and source; `twice`: with checkpointing."""
    blocks = len(flux.double_blocks) + len(flux.single_blocks)
    kept = blocks * (KEPT + KEPT_OF_MLP * find_model_family(flux).mlp_rows)
    widths = CHECKPOINTED * blocks + CHECKPOINTED_ONCE if twice else kept
    return int(tokens * flux.params.hidden_size * dtype.itemsize * widths)


def check_memory(trainer: StageTrainer, estimate: MemoryEstimate, free: int | None) -> None:
    """Refuses a stage that takes more than is `free`, with what would make it fit."""
    if free is None or estimate.additional <= free:
        return
    fixed, settings = estimate.additional - estimate.activations, trainer.settings
    sample = (estimate.checkpointed if trainer.checkpointing_options else estimate.activations) / max(
        len(b.ids) for b in trainer.draw_batches()
    )
    advice = []
    if not settings.checkpointing and fixed + estimate.checkpointed <= free:
        advice.append("set checkpointing = true")
    if fitting := max(0, int((free - fixed) / sample)):
        advice.append(f"set micro = {fitting}, which changes no result")
    others = sum(estimate.base.values()) * (ranks.world_size() - 1) // ranks.world_size()
    if not settings.shard and estimate.additional - others <= free:
        advice.append(f"set shard = true: {ranks.world_size()} processes then share the base")
    if settings.precision == "fp32":
        advice.append('set precision = "bf16"')
    raise TrainingError(
        f"{trainer.stage.name} needs {format_bytes(estimate.additional)} more beside the base, {trainer.device} has "
        f"{format_bytes(free)} left: "
        f"{', or '.join(advice or ['set a smaller rank or resolution, or take a larger device'])}."
    )


class MemoryReport(Listener):
    """Says what each stage takes, and refuses one that does not fit."""

    def __init__(self, say: Callable[[str], None], find_free: Callable[[torch.device], int | None] = find_free_memory):
        self.say, self.find_free = say, find_free

    def on_stage_begin(self, trainer: Trainer) -> None:
        if isinstance(trainer, StageTrainer):
            estimate = estimate_memory(trainer)
            self.say(f"{trainer.stage.name} takes, on {trainer.device}:\n{estimate.format_table()}")
            check_memory(trainer, estimate, self.find_free(trainer.device))
