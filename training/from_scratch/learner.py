"""Training that can be stopped at any time and goes on as if nothing had happened."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...prw.files.atomic_write import atomic_write
from ..checkpoint.checkpoints import CheckpointFolder
from ..errors import RunStopped
from ..monitor.stop_signal import StopSignals
from ..optimizers import load_state, split_state
from ..schedules import compute_rate_factor

Progress = Callable[[str, int, int], None]
"""Is told what is made, how much is done, and of how much (0: nobody knows)."""
SAVE_MINUTES = 5.0
"""Between two checkpoints."""
LOG_EVERY = 50
"""Iterations whose mean loss is a line of the log."""


class LearnerPlan(NamedTuple):
    """How long and how fast something is trained."""

    iterations: int
    batch: int
    rate: float


class Learner:
    """Modules in training, with everything that their next iteration depends on."""

    def __init__(self, name: str, modules: Mapping[str, nn.Module], plan: LearnerPlan, warmup: int, **adamw: Any):
        self.name, self.modules, self.plan, self.warmup, self.done = name, modules, plan, warmup, 0
        self.rng: np.random.Generator | None = None
        """What draws, if it goes on from one iteration to the next."""
        self.losses: list[float] = []
        """Those that no line of the log has yet."""
        self.parameters = [parameter for module in modules.values() for parameter in module.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=plan.rate, **adamw)

    def step(self) -> float:
        """Does an iteration and gives its loss."""
        raise NotImplementedError

    def update(self, loss: Tensor) -> float:
        """Follows a loss's gradient."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate * compute_rate_factor("cosine", self.done, self.plan.iterations, self.warmup)
        self.optimizer.step()
        self.done += 1
        return loss.item()

    def list_groups(self) -> dict[str, Mapping[str, Tensor]]:
        """Lists the tensors to be kept, the optimizer's aside."""
        return {name: module.state_dict() for name, module in self.modules.items()}

    def load_groups(self, groups: dict[str, dict[str, Tensor]]) -> None:
        for name, module in self.modules.items():
            module.load_state_dict(groups[name])

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, rest = split_state(self.optimizer)
        groups = {**self.list_groups(), "optimizer": tensors}
        flat = {f"{kind}/{name}": tensor for kind, group in groups.items() for name, tensor in group.items()}
        rng = {} if self.rng is None else {"rng": self.rng.bit_generator.state}
        return flat, {"done": self.done, "optimizer": rest, "losses": self.losses, **rng}

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        groups: dict[str, dict[str, Tensor]] = {"optimizer": {}}
        for name, tensor in tensors.items():
            kind, rest = name.split("/", 1)
            groups.setdefault(kind, {})[rest] = tensor
        self.load_groups(groups)
        load_state(self.optimizer, groups["optimizer"], state["optimizer"])
        if self.rng is not None:
            self.rng.bit_generator.state = state["rng"]
        self.done, self.losses = state["done"], state.get("losses", [])


class Timer:
    """Says every so many minutes that it is time, and begins anew."""

    def __init__(self, minutes: float):
        self.minutes, self.last = minutes, time.monotonic()

    def restart_if_due(self) -> bool:
        due = time.monotonic() - self.last >= 60 * self.minutes
        if due:
            self.last = time.monotonic()
        return due


def learn(
    learner: Learner,
    folder: Path,
    progress: Progress,
    save_minutes: float = SAVE_MINUTES,
    after_step: Callable[[], None] = lambda: None,
) -> CheckpointFolder:
    """Goes on from the last checkpoint to the end, and saves one every few minutes and when a signal asks to stop;
    gives the folder of them."""
    checkpoints, timer = CheckpointFolder(folder, f"{learner.name}-training", keep=1), Timer(save_minutes)
    log = folder / f"{learner.name}-losses.csv"
    checkpoints.resume_alone(learner.load)
    forget_later_losses(log, learner.done)
    with StopSignals().installed() as signals:
        while learner.done < learner.plan.iterations:
            learner.losses.append(learner.step())
            progress(learner.name, learner.done, learner.plan.iterations)
            if learner.done % LOG_EVERY == 0:
                with open(log, "a", encoding="utf-8") as file:
                    file.write(f"{learner.done},{np.mean(learner.losses):.5f}\n")
                learner.losses.clear()
            after_step()
            if timer.restart_if_due() or signals.wants_stop():
                checkpoints.save(learner.done, *learner.state())
            if signals.wants_stop():
                raise RunStopped(signal=signals.received)
    return checkpoints


def forget_later_losses(log: Path, done: int) -> None:
    """Drops the lines of iterations that come again."""
    if not log.exists():
        return
    lines = [
        line for line in log.read_text(encoding="utf-8").splitlines(keepends=True) if int(line.split(",")[0]) <= done
    ]
    with atomic_write(log) as partial:
        partial.write_text("".join(lines), encoding="utf-8")
