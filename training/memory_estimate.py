"""What a stage takes on its device, told before its first iteration; what cannot fit is refused then, not hours later.

Weights, gradients and optimizer are counted to the byte, activations from the number of tokens: what autograd keeps
grows with tokens x width x blocks (how much was measured, docs/scale.md).
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..prw.weaving import named_blocks
from .base.offload import AT_ONCE, VisitingLinear
from .batch import Batch
from .checkpoint.checkpoints import TrainingError
from .data.encoded.estimate_cache import format_gib
from .distributed import ranks
from .listener import Listener
from .monitor.terminal import ProgressLine
from .trainer import StageTrainer, Trainer

KEPT, KEPT_ONCE = 14, 5
"""Activations a token, in widths, that every block keeps for its gradient, and what there is besides."""
SPARED, SPARED_ONCE = 2, 21
"""The same where blocks are computed twice: between blocks, and within the one at work."""
STATES = {"adamw": 2, "prodigy": 4}
"""Tensors of an optimizer for each that is trained."""


class Needs(NamedTuple):
    """In bytes."""

    base: dict[str, int]
    """The frozen FLUX, by type of number: what this process holds of it between two blocks' turns."""
    visiting: int
    """Of the largest blocks, what comes for their turn alone."""
    trained: int
    """Expert and router, and their running average."""
    gradients: int
    optimizer: int
    batch: int
    activations: int
    """Of one forward and backward, as settings say."""
    spared: int
    """The same, if blocks are computed twice."""

    @property
    def coming(self) -> int:
        """What is not on the device yet when a stage begins."""
        return self.visiting + self.gradients + self.optimizer + self.batch + self.activations

    def table(self) -> str:
        base = {f"base, {kind}": size for kind, size in self.base.items()}
        base |= {"base, a block's turn": self.visiting} if self.visiting else {}
        parts = {"expert and router": self.trained, "gradients": self.gradients, "optimizer": self.optimizer}
        moving = {"batch": self.batch, "activations, about": self.activations}
        rows = {**base, **parts, **moving, "in all": sum(self.base.values()) + self.trained + self.coming}
        return "\n".join(f"  {name:<20}{told(size):>10}" for name, size in rows.items())


def needs(trainer: StageTrainer) -> Needs:
    base, flux = Counter(), trainer.host.flux
    resting = {p for layer in flux.modules() if isinstance(layer, VisitingLinear) for p in layer.parameters()}
    for parameter in flux.parameters():
        if parameter not in resting:
            base[str(parameter.dtype).removeprefix("torch.")] += held(parameter)
    blocks = [block.parameters() for _, block in named_blocks(flux)]
    visiting = max(sum(AT_ONCE * p.nbytes if p in resting else p.nbytes - held(p) for p in some) for some in blocks)
    trained = sum(tensor.nbytes for tensor in trainer.trained.values())
    batches = trainer.draw_batches()
    kept, spared = (max(activations(trainer, batch, twice) for batch in batches) for twice in (False, True))
    return Needs(
        dict(base),
        visiting,
        trained * (2 if trainer.weights.average else 1),
        trained,
        trained * STATES[trainer.settings.optimizer],
        max(sum(part.nbytes for part in batch if isinstance(part, Tensor)) for batch in batches),
        spared if trainer.checkpointing_options else kept,
        spared,
    )


def held(parameter: Tensor) -> int:
    """Bytes of it on its device."""
    return parameter.to_local().nbytes if isinstance(parameter, DTensor) else parameter.nbytes


def activations(trainer: StageTrainer, batch: Batch, twice: bool) -> int:
    host = trainer.host
    pictures = sum(part.shape[-2] * part.shape[-1] // host.flux.patch_size**2 for part in (batch.target, batch.source))
    return activations_of(host.flux, len(batch.ids) * (pictures + batch.context.shape[1]), host.dtype, twice)


def activations_of(flux: nn.Module, tokens: int, dtype: torch.dtype, twice: bool) -> int:
    """Tokens of text, picture and source, of all samples."""
    blocks = len(flux.double_blocks) + len(flux.single_blocks)
    widths = SPARED * blocks + SPARED_ONCE if twice else KEPT * blocks + KEPT_ONCE
    return tokens * flux.double_blocks[0].hidden_size * dtype.itemsize * widths


def told(size: int) -> str:
    return format_gib(size) if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def free_on(device: torch.device | str) -> int | None:
    """Bytes; None where nobody can tell, or where memory is the machine's."""
    device = torch.device(device)
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def refuse_oversized(trainer: StageTrainer, found: Needs, free: int | None) -> None:
    if free is None or found.coming <= free:
        return
    resting, settings = found.coming - found.activations, trainer.settings
    sample = (found.spared if trainer.checkpointing_options else found.activations) / max(
        len(b.ids) for b in trainer.draw_batches()
    )
    advice = []
    if not settings.checkpointing and resting + found.spared <= free:
        advice.append("set checkpointing = true")
    if fitting := max(0, int((free - resting) / sample)):
        advice.append(f"set micro = {fitting}, which changes no result")
    others = sum(found.base.values()) * (ranks.count() - 1) // ranks.count()
    if not settings.shard and found.coming - others <= free:
        advice.append(f"set shard = true: {ranks.count()} processes then share the base")
    if settings.precision == "fp32":
        advice.append('set precision = "bf16"')
    raise TrainingError(
        f"{trainer.stage.name} needs {told(found.coming)} more beside the base, {trainer.device} has {told(free)} left: "
        f"{', or '.join(advice or ['set a smaller rank or resolution, or take a larger device'])}."
    )


class Memory(Listener):
    """Tells a table a stage."""

    def __init__(self, line: ProgressLine, free: Callable[[torch.device], int | None] = free_on):
        self.line, self.free = line, free

    def on_stage_begin(self, trainer: Trainer) -> None:
        if isinstance(trainer, StageTrainer):
            found = needs(trainer)
            self.line.say(f"{trainer.stage.name} takes, on {trainer.device}:\n{found.table()}")
            refuse_oversized(trainer, found, self.free(trainer.device))
