"""A run: trainers at work in a folder. It goes on from its last checkpoint, logs, saves, and stops when asked.

curriculum_run.py trains a bank stage after stage, subject/run.py a subject. The folder's files: checkpoint/run_folder.py.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..prw.source_pass import Host
from .checkpoint.checkpoints import CheckpointFolder, TrainingError
from .checkpoint.run_folder import RunFolder, format_label
from .checkpoint.run_record import Knobs
from .data.encoded.dataset import EncodedDataset
from .distributed import ranks
from .encoders.protocol import Encoders
from .errors import NonFiniteLoss, RunStopped
from .listener import Listener
from .recipes.curriculum import Settings, Stage
from .trainer import Trainer
from .validate import Validation, check_length

LOG = logging.getLogger(__name__)


@dataclass
class Run(ABC):
    host: Host
    recipe: Any
    """What is trained: a Curriculum, or a SubjectRecipe."""
    datasets: Mapping[str, EncodedDataset]
    encoders: Encoders
    path: Path
    """The run's folder."""
    seed: int = 0
    base_name: str = ""
    """Written into what is trained."""
    listeners: Sequence[Listener] = ()
    checkpointing_options: dict[str, Any] | None = None
    """Transformer options by which this host recomputes activations."""
    interrupts: tuple[type[BaseException], ...] = ()
    """What this host raises to stop, anywhere within an iteration; everything before it is saved."""
    knobs: Knobs = field(default_factory=Knobs)
    """How sentences name what a person would change."""
    failed_listeners: list[Listener] = field(default_factory=list)
    """Listeners that could not write to the disk, each of which is warned of once."""
    review_pending: bool = field(default=False, init=False)
    """Whether an iteration is done, but not the checks and samples that are due at it."""

    @cached_property
    def folder(self) -> RunFolder:
        return RunFolder(self.path, self.knobs)

    @abstractmethod
    def count_finished(self, stage: Stage, number: int) -> int:
        """Counts iterations of what a stage has left; 0 where it has left nothing yet."""

    def is_finished(self, stage: Stage, number: int) -> bool:
        """Says whether a stage is over: more iterations than it has had make it go on, unless it ended by itself."""
        return self.count_finished(stage, number) >= (1 if stage.ceiling else stage.iterations)

    @abstractmethod
    def validate(self, trainer: Any) -> dict[str, Validation]: ...

    @abstractmethod
    def make_sample_sheet(self, trainer: Any) -> np.ndarray:
        """Makes what the trainer's weights sample by now, uint8 (height, width, 3)."""

    def run_trainer(self, trainer: Trainer, checkpoints: CheckpointFolder) -> None:
        """Trains to the end, from the last checkpoint."""
        self.review_pending = bool(checkpoints.resume(trainer.load, self.host.device).get("unseen", False))
        self.notify("on_stage_begin", trainer)
        try:
            if self.review_pending:
                self._review(trainer)
            self._loop(trainer, checkpoints)
        except (TrainingError, *self.interrupts) as error:
            self._save_after(error, trainer, checkpoints)
            raise

    def _loop(self, trainer: Trainer, checkpoints: CheckpointFolder) -> None:
        while not trainer.finished:
            result, self.review_pending = trainer.train_iteration(), True
            self.folder.check_present()
            if result is not None:
                self.notify("on_iteration", trainer, result)
            self._review(trainer)
            stop = self.is_stop_requested()
            if ranks.rank() == 0 and (stop or is_due(trainer, trainer.settings.save_every)):
                self.folder.check_present()
                self.notify("on_checkpoint", trainer, checkpoints.save(trainer.iteration, *trainer.state()))
            if stop and not trainer.finished:
                ranks.barrier()  # the first process to leave ends the others
                raise RunStopped

    def _review(self, trainer: Trainer) -> None:
        """Checks, validates and samples where it is due;
        if something ends the run meanwhile it is still due when it goes on."""
        settings, self.review_pending = trainer.settings, True
        self._notify_result("on_length_check", check_length, trainer)
        if is_due(trainer, settings.validate_every):
            self._notify_result("on_validation", self.validate, trainer)
        if (ranks.rank() == 0 or ranks.is_sharded(settings)) and is_due(trainer, settings.sample_every):
            self._notify_result("on_samples", self.make_sample_sheet, trainer)
        self.review_pending = False

    def _notify_result(self, event: str, compute: Callable[[Trainer], Any], trainer: Trainer) -> None:
        try:
            result = compute(trainer)
        except torch.OutOfMemoryError:
            if ranks.world_size() > 1:  # others may wait for this one
                raise
            done = "sampled" if event == "on_samples" else "validated"
            message = "Memory ran out while iteration %s was %s: training goes on without it; set micro smaller."
            LOG.warning(message, trainer.iteration, done)
        else:
            if result is not None:
                self.notify(event, trainer, result)

    def _save_after(self, error: BaseException, trainer: Trainer, checkpoints: CheckpointFolder) -> None:
        """Saves the weights, which are still those of the last good iteration."""
        if not self.folder.is_present():
            return
        if isinstance(error, NonFiniteLoss):
            self.folder.write_json(error.file, {"iteration": trainer.iteration, "ids": error.ids})
        if ranks.rank() == 0:
            with suppress(TrainingError):
                tensors, state = trainer.state()
                checkpoints.save(trainer.iteration, tensors, {**state, "unseen": self.review_pending})

    def is_stop_requested(self) -> bool:
        wanted = any(listener.wants_stop() for listener in self.listeners)
        return bool(ranks.sum_over_ranks(float(wanted), self.host.device))

    def open_checkpoints(self, stage: Stage, number: int, settings: Settings) -> CheckpointFolder:
        return CheckpointFolder(self.path / "checkpoints", format_label(stage, number), settings.keep)

    def notify(self, event: str, *args: Any) -> None:
        """Calls a method of every listener; one that cannot write is named once, and training goes on."""
        if ranks.rank() == 0:
            for listener in self.listeners:
                try:
                    getattr(listener, event)(*args)
                except OSError as error:
                    self._warn_once(listener, error)

    def _warn_once(self, listener: Listener, error: OSError) -> None:
        if listener not in self.failed_listeners:
            self.failed_listeners.append(listener)
            message = "%s cannot write (%s): training goes on without it; make room or mend the folder."
            LOG.warning(message, type(listener).__name__, error.strerror or error)


def is_due(trainer: Trainer, every: int) -> bool:
    """Says whether something is due: every so many iterations, and at the stage's end; 0 never."""
    return every > 0 and (trainer.iteration % every == 0 or trainer.finished)
