"""What several processes cost each other: an iteration side by side against one together, with as many samples each.

FLUX's blocks are replaced by naps of a real step's length in all, half of them on the way back. Everything else is
the real thing at its real size: lessons are drawn, routers route, experts get gradients, processes add them up, AdamW
steps, the log and the checkpoint are written. efficiency = seconds alone / seconds together.
"""

import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from ...prw.flux.flux1 import Flux, FluxParams
from ...prw.router import Route
from ...prw.select_experts import picker
from ..checkpoint.checkpoints import TrainingError
from ..distributed import ranks
from ..listener import Listener
from ..loop import StageTrainer
from ..monitor.log import LOG, Log, read_log
from ..runner import Runner
from .inference import Shapes, device_name
from .training import a_trainer


@dataclass(frozen=True)
class Idle:
    """A host whose FLUX has shapes and no weights."""

    flux: nn.Module
    device: torch.device
    dtype: torch.dtype = torch.float32


class Nap(torch.autograd.Function):
    """Sleeps both ways."""

    @staticmethod
    def forward(ctx, x: Tensor, seconds: float) -> Tensor:
        ctx.seconds = seconds
        time.sleep(seconds)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor):
        time.sleep(ctx.seconds)
        return grad, None


class Napping(StageTrainer):
    """One token of a source goes through routers and experts alone, block by block, with a nap for FLUX's part."""

    seconds: float

    def taught(self, batch, noise) -> tuple[Tensor, dict[str, Route], float]:
        pick, blocks = picker(self.bank, self.routing(batch.task), noise), self.bank.info.base.blocks()
        h = batch.source.flatten(1)[:, None, : self.bank.info.base.hidden_size].to(self.device).float()
        h.requires_grad_()  # or the first block would not nap on the way back
        routes = {}
        for block in blocks:
            h = Nap.apply(h, self.seconds / 2 / len(blocks))
            weave = pick(block, h)
            h, routes[block] = h + weave.residual(h, "k") + weave.residual(h, "v"), weave.route
        return h.square().mean((1, 2)), routes, 0.0


class Loop(Runner):
    """The loop that all training runs in; it never validates or draws."""

    def validation(self, trainer):
        raise NotImplementedError

    def sheet(self, trainer):
        raise NotImplementedError


class Saves(Listener):
    """How long a checkpoint takes."""

    def __init__(self):
        self.since = 0.0
        self.seconds: list[float] = []

    def stepped(self, trainer, step) -> None:
        self.since = time.perf_counter()

    def saved(self, trainer, path) -> None:
        self.seconds.append(time.perf_counter() - self.since)


def scaling(shapes: Shapes, seconds: float, batch: int, iterations: int, device: str) -> dict:
    """Of the processes that torchrun has started; the first one's figures, nothing for the others."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        raise TrainingError(
            "There is one process, expected two or more: torchrun --nproc-per-node 2 -m cologen.training bench scaling."
        )
    # side by side, each by itself: they compete for the machine then as they do together
    alone = timed(shapes, seconds, batch, iterations, device)
    with ranks.joined(device) as own:
        together, processes = timed(shapes, seconds, batch, iterations, own), ranks.count()
    if not together:
        return {}
    return {
        "alone": alone["iteration"],
        "together": together["iteration"],
        "efficiency": alone["iteration"] / together["iteration"],
        "checkpoint": together["checkpoint"],
        "processes": processes,
        "nap": seconds,
        "trained": together["trained"],
        "batch": batch,
        "device": device_name(device),
        "torch": torch.__version__,
        "shapes": vars(shapes),
    }


def timed(shapes: Shapes, seconds: float, batch: int, iterations: int, device: str) -> Mapping[str, float]:
    """Median seconds of an iteration and of a checkpoint, after an iteration that makes the optimizer's state."""
    params = FluxParams(
        hidden_size=shapes.width,
        num_heads=shapes.width // 128,
        depth=shapes.double,
        depth_single_blocks=shapes.single,
    )
    with torch.device("meta"):
        flux = Flux(params)
    host, ending = Idle(flux, torch.device(device)), dict(iterations=iterations + 1, save_every=iterations)
    trainer = a_trainer(shapes, host, batch * ranks.count(), kind=Napping, **ending)
    trainer.seconds = seconds
    with TemporaryDirectory() as name:
        out = Path(ranks.from_first(name))
        saves = Saves()
        loop = Loop(host, recipe=None, lessons={}, codec=None, out=out, listeners=[Log(out), saves])
        loop.go_on(trainer, loop.checkpoints(trainer.stage, 1, trainer.settings))
        ranks.wait()
        if ranks.rank() > 0:
            return {}
        each = [line["seconds"] for line in read_log(out / LOG)][1:]
    trained = sum(tensor.numel() for tensor in trainer.trained.values())
    return {
        "iteration": statistics.median(each),
        "checkpoint": statistics.median(saves.seconds),
        "trained": trained,
    }
