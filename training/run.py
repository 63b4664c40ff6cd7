"""A curriculum from its first stage to its last, in one folder: it can be stopped anywhere and goes on there.

bank.safetensors           the result so far
stages/N-NAME.safetensors  the bank as it stood after each stage
stages/N-NAME.features.safetensors   what features need to be drawn along, where a stage learned them so
stages/start.safetensors   the bank that the first stage was given, if any
checkpoints/               where the running stage can go on
log.jsonl, samples/        what happened
features/                  what an encoder sees in the lessons, where a stage asks for it
run.json                   what this folder is of (run_folder.py)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ..prw.bank.bank import Bank
from ..prw.bank.shapes import keys_of
from ..prw.base_model import Base
from ..prw.coredi.features import SUFFIX
from .add_expert import empty_bank, grown, refuse_early
from .checkpoint.checkpoints import TrainingError
from .checkpoint.run_folder import BANK
from .data.encoded.dataset import EncodedDataset, MemoryDataset
from .distributed import ranks
from .errors import Stopped
from .loop import StageTrainer
from .recipes.curriculum import Curriculum, Stage
from .routing_stats import dominant, with_usage
from .runner import Runner, label
from .trainer import Work, refuse_batch
from .validate import Validation, sample_grid, validate


@dataclass
class Run(Runner):
    """Its lessons are by stage; each needs its own."""

    done: list[Stage] = field(default_factory=list)

    @property
    def curriculum(self) -> Curriculum:
        return self.recipe

    def train(self, bank: Bank | None = None, only: str = "") -> Bank:
        """All stages that are not done yet, or only one of them; `bank` brings what was trained elsewhere."""
        base = Base.of(self.host.flux).with_probe(self.host.flux, self.name)
        encoders = [self.encoders.identity()] if self.curriculum.encoders else []
        bank = self.folder.begun(self.curriculum, self.seed, base, bank, encoders)
        bank = bank or empty_bank(base, self.curriculum.settings)
        self._refuse_early(bank, only)
        for number, stage in enumerate(self.curriculum.stages):
            path = self.folder.stage(label(stage, number))
            if ranks.from_first(path.exists()):
                bank = following(bank, path, stage)
            elif only == stage.name or (not only and stage.name not in bank.info.experts):
                bank = self.train_stage(bank, stage, number)
                if ranks.rank() == 0:
                    bank.save(self.out / BANK)
                    bank.save(path)  # last: it says that the stage is over
                    self.checkpoints(stage, number, self.curriculum.settings).clear()
                self.tell("stage_ended", stage, bank)
            self.done.append(stage)
            if stage.name == only:
                break
        path = self.out / BANK
        if not only and ranks.rank() == 0 and not (path.exists() and Bank.open(path).info == bank.info):
            bank.save(path)  # an earlier stage was the last to be trained
        return bank

    def _refuse_early(self, bank: Bank, only: str) -> None:
        """What can be known of all stages before the first."""
        numbered = enumerate(self.curriculum.stages)
        done = {stage.name for number, stage in numbered if self.folder.stage(label(stage, number)).exists()}
        coming = [
            stage
            for stage in self.curriculum.stages
            if stage.name == only or (stage.name not in bank.info.experts and (not only or stage.name in done))
        ]
        refuse_early(bank.info, coming, self.curriculum.settings)
        for stage in coming:
            refuse_batch(stage)
            if stage.features == "self" and ranks.sharing(self.curriculum.settings):
                raise TrainingError(
                    f'{stage.name} has features = "self", which runs the base more often for some lessons than for others, '
                    f"but blocks that processes share come for all at once: set shard = false, or features = "
                    f'"coredi".'
                )

    def train_stage(self, bank: Bank, stage: Stage, number: int) -> Bank:
        if self.asked_to_stop():
            raise Stopped
        settings = self.curriculum.settings
        with ranks.first_alone():
            lessons = self._lessons(stage)
        before = dominant(self.host, bank, lessons[stage.task], settings.micro)
        bank = grown(bank, stage, settings, self.seed + number, before)
        trainer = self._trainer(bank, stage, number, lessons)
        self.go_on(trainer, self.checkpoints(stage, number, settings))
        if ranks.rank() == 0 and (besides := trainer.besides()):
            besides.save(self.folder.stage(label(stage, number) + SUFFIX))
        return with_usage(self.host, trainer.result(), stage.name, lessons[stage.task], settings.micro)

    def _trainer(self, bank: Bank, stage: Stage, number: int, lessons: Mapping[str, EncodedDataset]) -> StageTrainer:
        settings, empty = self.curriculum.settings, self.encoders.encode_prompts([""])
        work = Work(self.host, stage, number, settings, lessons, empty, self.seed, self.spare)
        if stage.features == "off":
            return StageTrainer(work, bank)
        dataset = lessons[stage.task]
        if not isinstance(dataset, MemoryDataset):
            raise TrainingError(
                f"{stage.name} learns features of pictures that lie in a cache, expected them in memory: leave cache out "
                f'of its data, or set features = "off".'
            )
        from .coredi.encoder_features import kept_features
        from .coredi.trainer import FeatureTrainer

        with ranks.first_alone():
            own = (self.host, dataset, self.encoders, settings.encoder, self.out / "features")
            features = kept_features(*own)
        return FeatureTrainer(work, bank, features)

    def validation(self, trainer: StageTrainer) -> dict[str, Validation]:
        return validate(trainer)

    def sheet(self, trainer: StageTrainer) -> np.ndarray:
        return sample_grid(trainer, self.encoders)

    def _lessons(self, stage: Stage) -> dict[str, EncodedDataset]:
        """By task: the stage's own and the earlier ones', for replay and validation; of two of a task the later's."""
        stages = self.curriculum.stages
        latest = {each.task: each.name for each in (*stages[: stages.index(stage)], stage)}
        if stage.name not in self.lessons:
            raise TrainingError(
                f"There is no data for {stage.task} (there is for {', '.join(self.lessons) or 'nothing'}): add some, or "
                f"leave the stage {stage.name} out."
            )
        return {task: self.lessons[name] for task, name in latest.items() if name in self.lessons}


def following(bank: Bank, path: Path, stage: Stage) -> Bank:
    """What a stage left, unless an earlier one was trained only after it."""
    later = Bank.open(path)
    kept = bank.info.experts.keys() - set(stage.along)
    lost = [name for name in kept if name not in later.info.experts or not alike(bank, later, name)]
    if lost:
        raise TrainingError(
            f"{path.name} was trained without {', '.join(sorted(lost))} as it is now: delete it to train its stage again, "
            f"or choose another folder."
        )
    return later


def alike(one: Bank, other: Bank, expert: str) -> bool:
    return all(torch.equal(one.tensors[key], other.tensors[key]) for key in keys_of(one.info, expert))
