"""Files for TensorBoard, a folder a stage: losses, usage, validation, samples as pictures."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...prw.bank.bank import Bank
from ...prw.personalization.concept import Concept
from ..listener import Listener
from ..recipes.curriculum import Stage
from ..stage_context import IterationResult
from ..stage_length import LengthCheck
from ..trainer import Trainer
from ..validate import Validation
from .event_file import EventFile
from .log import name_experts

FOLDER = "tensorboard"


class TensorBoard(Listener):
    """Writes them into a run's folder, if TensorBoard is installed."""

    def __init__(self, out: Path):
        self.folder = out / FOLDER
        self.writer: EventFile | None = None
        self.missing = False

    def on_stage_begin(self, trainer: Trainer) -> None:
        try:
            from torch.utils.tensorboard import summary  # noqa: F401
        except ImportError:
            if not self.missing:
                logging.getLogger(__name__).info("TensorBoard is not installed: training goes on without its files.")
            self.missing = True
            return
        path = self.folder / f"{trainer.stage_number + 1}-{trainer.stage.name}"
        self.writer = EventFile(path, trainer.iteration + 1)

    def on_iteration(self, trainer: Trainer, result: IterationResult) -> None:
        rate = trainer.weights.optimizer.param_groups[0]["lr"]
        values = {"task": result.task_loss, "veteran": result.veteran_loss, "gradient": result.norm, "rate": rate}
        usage = {f"usage/{name}": share for name, share in name_experts(trainer, result.usage).items()}
        self._add_scalars(trainer, {f"train/{name}": value for name, value in values.items()} | usage)

    def on_validation(self, trainer: Trainer, results: Mapping[str, Validation]) -> None:
        self._add_scalars(trainer, {f"validation/{task}": validation.loss for task, validation in results.items()})

    def on_length_check(self, trainer: Trainer, check: LengthCheck) -> None:
        if check.loss is not None and check.usage is not None:
            self._add_scalars(trainer, {"length/loss": check.loss, "length/usage": check.usage})

    def on_samples(self, trainer: Trainer, sheet: np.ndarray) -> None:
        if self.writer:
            from torch.utils.tensorboard import summary

            self.writer.add(summary.image("samples", sheet, dataformats="HWC"), trainer.iteration)

    def _add_scalars(self, trainer: Trainer, values: Mapping[str, float]) -> None:
        if self.writer is None:
            return
        from torch.utils.tensorboard import summary

        for name, value in values.items():
            self.writer.add(summary.scalar(name, value), trainer.iteration)

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        if self.writer:
            self.writer.flush()

    def on_stage_end(self, stage: Stage, result: Bank | Concept) -> None:
        if self.writer:
            self.writer.close()
