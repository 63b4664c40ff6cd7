"""What several processes cost each other: an iteration side by side against one together, with as many samples each.

FLUX's blocks are replaced by sleeps of a real iteration's length in all, half of them in the backward pass. Everything
else is the real thing at its real size: batches are drawn, routers route, experts get gradients, processes add them up,
AdamW steps, the log and the checkpoint are written. efficiency = seconds alone / seconds together.
"""

import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...prw.bank.bank import Bank
from ...prw.embedded_host import EmbeddedHost
from ...prw.flux.flux1 import Flux, FluxParams
from ...prw.flux.inputs import FluxInputs
from ...prw.select_experts import BlockNoise, make_selector
from ..batch import Batch, NoisedBatch
from ..checkpoint.checkpoints import TrainingError
from ..distributed import ranks
from ..forward import SourceContext
from ..listener import Listener
from ..monitor.log import LOG_FILE, Log, read_log
from ..run import Run
from ..stage_context import IterationResult
from ..stage_trainer import StageTrainer
from ..trainer import Trainer
from .shapes import Shapes
from .timing import describe_run
from .training import make_trainer

UNUSED: Any = None
"""Recipe and encoders of a run that only iterates."""


class IdleHost(EmbeddedHost):
    """A host whose FLUX has shapes and no weights, for trainers that never run it."""

    def __init__(self, shapes: Shapes, device: str):
        shape = dict(hidden_size=shapes.width, num_heads=shapes.heads)
        with torch.device("meta"):
            flux = Flux(FluxParams(**shape, depth=shapes.double, depth_single_blocks=shapes.single))
        super().__init__(flux, torch.float32)
        self.where = torch.device(device)

    @property
    def device(self) -> torch.device:
        return self.where


class SimulatedForward(torch.autograd.Function):
    """The identity; sleeps so many seconds forwards and backwards."""

    @staticmethod
    def forward(ctx, x: Tensor, seconds: float) -> Tensor:
        ctx.seconds = seconds
        time.sleep(seconds)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None]:
        time.sleep(ctx.seconds)
        return grads[0], None


class SleepingTrainer(StageTrainer):
    """One token of a source goes through routers and experts alone, block by block, with a sleep in place of FLUX."""

    seconds: float
    """Slept in an iteration, by all blocks, forward and backward."""

    def noise_and_run_source(self, batch: Batch, bank: Bank, router_noise: BlockNoise | None = None) -> NoisedBatch:
        pick, blocks = make_selector(bank, self.make_routing(batch.task), router_noise), bank.info.base.blocks()
        h = batch.source.flatten(1)[:, None, : bank.info.base.hidden_size].to(self.device).float()
        h.requires_grad_()  # or the first block would not sleep in the backward pass
        routes = {}
        for block in blocks:
            h = SimulatedForward.apply(h, self.seconds / 2 / len(blocks))
            experts = pick(block, h)
            h, routes[block] = h + experts.residual(h, "k") + experts.residual(h, "v"), experts.route
        zeros = torch.zeros_like(h)  # the loss is then the mean of h squared
        return NoisedBatch(zeros, zeros, FluxInputs(h, batch.times, h, None), SourceContext({}, routes))

    def predict(self, batch: Batch, noised: NoisedBatch) -> tuple[Tensor, float]:
        return noised.inputs.x, 0.0


class BareRun(Run):
    """The loop that all training runs in; it never validates or draws."""

    def validate(self, trainer: Trainer) -> dict:
        raise NotImplementedError

    def make_sample_sheet(self, trainer: Trainer) -> np.ndarray:
        raise NotImplementedError

    def count_finished(self, stage: Any, number: int) -> int:
        return 0


class CheckpointTimer(Listener):
    """Measures how long each checkpoint takes."""

    def __init__(self):
        self.since = 0.0
        self.seconds: list[float] = []

    def on_iteration(self, trainer: Trainer, result: IterationResult) -> None:
        self.since = time.perf_counter()

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        self.seconds.append(time.perf_counter() - self.since)


def bench_scaling(shapes: Shapes, seconds: float, batch: int, iterations: int, device: str) -> dict:
    """Times the processes that torchrun has started; figures in the first one, nothing in the others."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        raise TrainingError(
            "There is one process, expected two or more: torchrun --nproc-per-node 2 -m cologen.training bench scaling."
        )
    # side by side, each by itself: they compete for the machine then as they do together
    alone = time_iterations(shapes, seconds, batch, iterations, device)
    with ranks.join(device) as rank_device:
        together, processes = time_iterations(shapes, seconds, batch, iterations, rank_device), ranks.world_size()
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
        **describe_run(shapes, device),
    }


def time_iterations(shapes: Shapes, seconds: float, batch: int, iterations: int, device: str) -> Mapping[str, float]:
    """Measures median seconds of an iteration and of a checkpoint,
    after an iteration that makes the optimizer's state."""
    host = IdleHost(shapes, device)
    trainer = make_trainer(
        shapes, host, batch * ranks.world_size(), SleepingTrainer, iterations=iterations + 1, save_every=iterations
    )
    trainer.seconds = seconds
    with TemporaryDirectory() as name:
        out = Path(ranks.broadcast_object(name))
        timer = CheckpointTimer()
        runner = BareRun(host, UNUSED, {}, UNUSED, out, listeners=[Log(out), timer])
        runner.run_trainer(trainer, runner.open_checkpoints(trainer.stage, 1, trainer.settings))
        ranks.barrier()
        if ranks.rank() > 0:
            return {}
        seconds_each = [line["seconds"] for line in read_log(out / LOG_FILE)][1:]
    trained = sum(tensor.numel() for tensor in trainer.trained.values())
    return {
        "iteration": statistics.median(seconds_each),
        "checkpoint": statistics.median(timer.seconds),
        "trained": trained,
    }
