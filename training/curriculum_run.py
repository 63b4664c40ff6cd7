"""A curriculum's run: stage after stage, each with one more expert and router in the bank."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..prw.bank.bank import Bank
from ..prw.base_model import Base
from ..prw.coredi.features import SUFFIX
from ..prw.flux.inputs import EncodedPrompt
from .add_expert import add_expert, check_stages, make_empty_bank
from .check_lengths import check_lengths
from .check_processes import check_batch_size, check_sharded_features
from .checkpoint.checkpoints import TrainingError
from .checkpoint.run_folder import BANK, count_bank_iterations, format_label, open_stage_bank
from .data.encoded.dataset import EncodedDataset
from .distributed import ranks
from .encoders.protocol import Encoders
from .errors import RunStopped
from .recipes.curriculum import Curriculum, Stage
from .routing_stats import find_dominant, record_usage
from .run import Run
from .stage_context import StageContext
from .stage_trainer import StageTrainer
from .validate import Validation, make_sample_sheet, validate

MakeTrainer = Callable[[StageContext, Bank, Encoders, Path], StageTrainer]
"""Context, bank with the stage's expert, encoders and the run's folder to a trainer: make_stage_trainer (coredi/)."""


@dataclass
class CurriculumRun(Run):
    """Trains a curriculum from its first stage to its last; `datasets` are by stage."""

    recipe: Curriculum
    make_trainer: MakeTrainer = field(kw_only=True)
    spare: int = field(default=0, init=False)
    """Iterations that the stages of length "auto" so far have left of their ceilings."""

    def train(self, bank: Bank | None = None, only: str = "") -> Bank:
        """Trains all stages that are not done yet, or only one of them; `bank` brings what was trained elsewhere."""
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
            if stage.ceiling and ranks.broadcast_object(path.exists()):  # trained here, not brought
                self.spare += stage.ceiling - bank.info.experts[stage.name].iterations
            if stage.name == only:
                break
        path = self.path / BANK
        if not only and ranks.rank() == 0 and not (path.exists() and Bank.open(path).info == bank.info):
            bank.save(path)  # an earlier stage was the last to be trained
        return bank

    def _save_stage(self, bank: Bank, stage: Stage, number: int) -> None:
        """Saves what a stage leaves, and of checkpoints only its last, from which it can be lengthened."""
        bank.save(self.path / BANK)
        self.open_checkpoints(stage, number, self.recipe.settings).clear(but_last=True)
        bank.save(self.folder.stage_path(format_label(stage, number)))  # it says that the stage is over
        for earlier, one in enumerate(self.recipe.stages[:number]):
            self.open_checkpoints(one, earlier, self.recipe.settings).clear()

    def count_finished(self, stage: Stage, number: int) -> int:
        path = self.folder.stage_path(format_label(stage, number))
        return (count_bank_iterations(path, stage.name) or stage.iterations) if path.exists() else 0

    def _check_stages(self, bank: Bank, only: str) -> None:
        """Refuses before the first stage what can be known of all of them."""
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
        empty, options = EncodedPrompt(*self.encoders.encode_prompts([""])), self.checkpointing_options
        context = StageContext(self.host, stage, number, settings, datasets, empty, self.seed, options, self.spare)
        bank = add_expert(bank, stage, settings, context.stage_seed, dominant)
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
        """Collects, by task, the stage's dataset and earlier stages' (replay, validation);
        a task's latest stage counts."""
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
