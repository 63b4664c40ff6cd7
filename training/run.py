"""A run: trainers at work in a folder. It goes on from its last checkpoint, logs, saves, and stops when asked.

CurriculumRun trains a bank stage after stage, subject/run.py a subject. The folder's files: checkpoint/run_folder.py.
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

from ..prw.bank.bank import Bank
from ..prw.base_model import Base
from ..prw.coredi.features import SUFFIX
from ..prw.flux.inputs import EncodedPrompt
from ..prw.source_pass import Host
from .add_expert import add_expert, check_stages, make_empty_bank
from .check_processes import check_batch_size, check_sharded_features
from .checkpoint.checkpoints import CheckpointFolder, TrainingError
from .checkpoint.run_folder import BANK, RunFolder, count_bank_iterations, format_label, open_stage_bank
from .checkpoint.run_record import Knobs
from .data.encoded.dataset import EncodedDataset
from .distributed import ranks
from .encoders.protocol import Encoders
from .errors import NonFiniteLoss, RunStopped
from .lengths import check_lengths
from .listener import Listener
from .recipes.curriculum import Curriculum, Settings, Stage
from .routing_stats import find_dominant, record_usage
from .stage_context import StageContext
from .trainer import StageTrainer, Trainer
from .validate import Validation, check_length, make_sample_sheet, validate

LOG = logging.getLogger(__name__)
MakeTrainer = Callable[[StageContext, Bank, Encoders, Path], StageTrainer]
"""Context, bank with the stage's expert, encoders and the run's folder to a trainer."""


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
        """Iterations of what a stage has left; 0 where it has left nothing yet."""

    def is_finished(self, stage: Stage, number: int) -> bool:
        """Whether a stage is over: more iterations than it has had make it go on, unless it ended by itself."""
        return self.count_finished(stage, number) >= (1 if stage.ceiling else stage.iterations)

    @abstractmethod
    def validate(self, trainer: Any) -> dict[str, Validation]: ...

    @abstractmethod
    def make_sample_sheet(self, trainer: Any) -> np.ndarray:
        """What the trainer's weights sample by now, uint8 (height, width, 3)."""

    def run_trainer(self, trainer: Trainer, checkpoints: CheckpointFolder) -> None:
        """Train to the end, from the last checkpoint."""
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
        """Check, validate and sample where it is due; if something ends the run meanwhile it is still due when it goes on."""
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
        """Save the weights, which are still those of the last good iteration."""
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
        """Call a method of every listener; one that cannot write is named once, and training goes on."""
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
    """Every so many iterations, and at the stage's end; 0 never."""
    return every > 0 and (trainer.iteration % every == 0 or trainer.finished)


def make_plain_trainer(context: StageContext, bank: Bank, encoders: Encoders, path: Path) -> StageTrainer:
    """The trainer of a stage without features; make_stage_trainer (coredi/trainer.py) knows both kinds."""
    if context.stage.features != "off":
        raise ValueError(f"{context.stage.name}.features is {context.stage.features}, expected off in this run.")
    return StageTrainer(context, bank)


@dataclass
class CurriculumRun(Run):
    """Trains a curriculum from its first stage to its last; `datasets` are by stage."""

    recipe: Curriculum
    make_trainer: MakeTrainer = make_plain_trainer
    done: list[Stage] = field(default_factory=list)
    spare: int = field(default=0, init=False)
    """Iterations that the stages of length "auto" so far have left of their ceilings."""

    def train(self, bank: Bank | None = None, only: str = "") -> Bank:
        """Train all stages that are not done yet, or only one of them; `bank` brings what was trained elsewhere."""
        base = Base.of(self.host.flux).with_probe(self.host.flux, self.base_name)
        encoders = {"encoders": self.encoders.identity()} if self.recipe.encoders else {}
        bank = self.folder.begin(self.recipe, self.seed, base, bank, encoders)
        check_lengths(self, self.recipe, only)
        bank, self.spare = bank or make_empty_bank(base, self.recipe.settings), 0
        self._check_stages(bank, only)
        for number, stage in enumerate(self.recipe.stages):
            path = self.folder.stage_path(format_label(stage, number))
            wanted = only in ("", stage.name)
            if ranks.broadcast_object(self.is_finished(stage, number) if wanted else path.exists()):
                bank = open_stage_bank(path, bank, stage)
            elif only == stage.name or (not only and stage.name not in bank.info.experts):
                bank = self.train_stage(bank, stage, number)
                self.folder.check_present()
                if ranks.rank() == 0:
                    self._save_stage(bank, stage, number)
                self.notify("on_stage_end", stage, bank)
            self.done.append(stage)
            if stage.ceiling and ranks.broadcast_object(path.exists()):  # trained here, not brought
                self.spare += stage.ceiling - bank.info.experts[stage.name].iterations
            if stage.name == only:
                break
        path = self.path / BANK
        if not only and ranks.rank() == 0 and not (path.exists() and Bank.open(path).info == bank.info):
            bank.save(path)  # an earlier stage was the last to be trained
        return bank

    def _save_stage(self, bank: Bank, stage: Stage, number: int) -> None:
        """Save what a stage leaves, and of checkpoints only its last, from which it can be lengthened."""
        bank.save(self.path / BANK)
        self.open_checkpoints(stage, number, self.recipe.settings).clear(but_last=True)
        bank.save(self.folder.stage_path(format_label(stage, number)))  # it says that the stage is over
        for earlier, one in enumerate(self.recipe.stages[:number]):
            self.open_checkpoints(one, earlier, self.recipe.settings).clear()

    def count_finished(self, stage: Stage, number: int) -> int:
        path = self.folder.stage_path(format_label(stage, number))
        return (count_bank_iterations(path, stage.name) or stage.iterations) if path.exists() else 0

    def _check_stages(self, bank: Bank, only: str) -> None:
        """Refuse before the first stage what can be known of all of them."""
        numbered = enumerate(self.recipe.stages)
        done = {
            stage.name for number, stage in numbered if self.folder.stage_path(format_label(stage, number)).exists()
        }
        coming = [
            stage
            for stage in self.recipe.stages
            if stage.name == only or (stage.name not in bank.info.experts and (not only or stage.name in done))
        ]
        check_stages(bank.info, coming, self.recipe.settings)
        for stage in coming:
            check_batch_size(stage)
            check_sharded_features(stage, self.recipe.settings)

    def train_stage(self, bank: Bank, stage: Stage, number: int) -> Bank:
        if self.is_stop_requested():
            raise RunStopped
        settings = self.recipe.settings
        with ranks.main_process_first():
            datasets = self._collect_datasets(stage)
        own = datasets[stage.task]
        dominant = find_dominant(self.host, bank, own, settings.micro)
        bank = add_expert(bank, stage, settings, self.seed + number, dominant)
        empty, options = EncodedPrompt(*self.encoders.encode_prompts([""])), self.checkpointing_options
        context = StageContext(self.host, stage, number, settings, datasets, empty, self.seed, options, self.spare)
        trainer = self.make_trainer(context, bank, self.encoders, self.path)
        self.run_trainer(trainer, self.open_checkpoints(stage, number, settings))
        if ranks.rank() == 0 and (artifact := trainer.export_features()):
            artifact.save(self.folder.stage_path(format_label(stage, number) + SUFFIX))
        return record_usage(self.host, trainer.export_bank(), stage.name, own, settings.micro)

    def validate(self, trainer: StageTrainer) -> dict[str, Validation]:
        return validate(trainer)

    def make_sample_sheet(self, trainer: StageTrainer) -> np.ndarray:
        return make_sample_sheet(trainer, self.encoders)

    def _collect_datasets(self, stage: Stage) -> dict[str, EncodedDataset]:
        """By task: the stage's dataset and earlier stages' (replay, validation); a task's latest stage counts."""
        stages = self.recipe.stages
        latest = {each.task: each.name for each in (*stages[: stages.index(stage)], stage)}
        if stage.name not in self.datasets:
            raise TrainingError(
                f"There is no data for {stage.task} (there is for {', '.join(self.datasets) or 'nothing'}): add some, or "
                f"leave the stage {stage.name} out."
            )
        datasets = {task: self.datasets[name] for task, name in latest.items() if name in self.datasets}
        if absent := stage.replay_from.keys() - datasets.keys():
            raise TrainingError(
                f"The stage {stage.name} mixes in {', '.join(sorted(absent))}, of which there is no data: add some, or leave "
                f"it out of replay_from."
            )
        return datasets
