"""A curriculum from its first stage to its last, in one folder: it can be stopped anywhere and goes on there.

bank.safetensors           the result so far
stages/N-NAME.safetensors  the bank as it stood after each stage
stages/start.safetensors   the bank that the first stage was given, if any
checkpoints/               where the running stage can go on
log.jsonl, samples/        what happened
run.json                   what this folder is of (run_folder.py)
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..prw.attachment import Host
from ..prw.bank import Bank
from ..prw.config import Base
from . import ranks
from .checkpoints import Folder, TrainingError, read
from .curriculum import Curriculum, Stage
from .forward import device_of
from .growing import empty_bank, grown, refuse_trained
from .lessons import Codec, Shelf
from .listeners import Listener
from .loop import StageTrainer
from .mishaps import NotFinite, Stopped
from .quiet import dominant, with_usage
from .run_folder import BANK, RunFolder
from .validate import sample_grid, validate


@dataclass
class Run:
    host: Host
    curriculum: Curriculum
    lessons: Mapping[str, Shelf]
    """By stage; each needs its own."""
    codec: Codec
    out: Path
    seed: int = 0
    name: str = ""
    """Of the base, for the bank."""
    listeners: Sequence[Listener] = ()
    spare: dict | None = None
    """What makes this host give up activations (checkpointing)."""
    breaks: tuple[type[BaseException], ...] = ()
    """What this host raises, anywhere within an iteration, to stop: everything before it is saved."""
    done: list[Stage] = field(default_factory=list)
    broken: list[Listener] = field(default_factory=list)
    """Those that could not write."""

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.out)

    def train(self, bank: Bank | None = None, only: str = "") -> Bank:
        """All stages that are not done yet, or only one of them; `bank` brings what was trained elsewhere."""
        base = Base.of(self.host.flux).probed(self.host.flux, self.name)
        bank = self.folder.begun(self.curriculum, self.seed, base, bank) or empty_bank(base, self.curriculum.settings)
        for number, stage in enumerate(self.curriculum.stages):
            path = self.folder.stage(label(stage, number))
            if path.exists():
                bank = following(bank, path)
            elif only == stage.name or (not only and stage.name not in bank.info.experts):
                bank = self.train_stage(bank, stage, number)
                if ranks.rank() == 0:
                    bank.save(self.out / BANK)
                    bank.save(path)  # last: it says that the stage is over
                    self._checkpoints(stage, number).clear()
                self._tell("stage_ended", stage, bank)
            self.done.append(stage)
            if stage.name == only:
                break
        return bank

    def train_stage(self, bank: Bank, stage: Stage, number: int) -> Bank:
        if self._asked_to_stop():
            raise Stopped
        settings = self.curriculum.settings
        refuse_trained(bank, stage)
        with ranks.first_alone():
            lessons = self._lessons(stage)
        before = dominant(self.host, bank, lessons[stage.task], settings.micro)
        bank = grown(bank, stage, settings, self.seed + number, before)
        empty = self.codec.texts([""])
        trainer = StageTrainer(self.host, bank, stage, number, settings, lessons, empty, self.seed, self.spare)
        folder = self._checkpoints(stage, number)
        if latest := folder.latest():
            trainer.load(*read(latest))
        self._tell("stage_began", trainer)
        try:
            self._iterate(trainer, folder)
        except (TrainingError, *self.breaks) as error:
            self._rescue(trainer, folder, error)
            raise
        return with_usage(self.host, trainer.result(), stage.name, lessons[stage.task], settings.micro)

    def _iterate(self, trainer: StageTrainer, folder: Folder) -> None:
        settings = trainer.settings
        while not trainer.finished:
            step = trainer.step()
            if step is not None:
                self._tell("stepped", trainer, step)
            if due(trainer, settings.validate_every):
                self._tell("validated", trainer, validate(trainer))
            if ranks.rank() == 0 and due(trainer, settings.sample_every):
                self._tell("sampled", trainer, sample_grid(trainer, self.codec))
            stop = self._asked_to_stop()
            if ranks.rank() == 0 and (stop or due(trainer, settings.save_every)):
                self._tell("saved", trainer, folder.save(trainer.iteration, *trainer.state()))
            if stop and not trainer.finished:
                ranks.wait()  # the first process to leave ends the others
                raise Stopped

    def _rescue(self, trainer: StageTrainer, folder: Folder, error: BaseException) -> None:
        """The weights are still those of the last good iteration."""
        if isinstance(error, NotFinite):
            self.folder.note(error.file, {"iteration": trainer.iteration, "ids": error.ids})
        if ranks.rank() == 0:
            with suppress(TrainingError):
                folder.save(trainer.iteration, *trainer.state())

    def _asked_to_stop(self) -> bool:
        asked = any(listener.wants_stop() for listener in self.listeners)
        return bool(ranks.total(float(asked), device_of(self.host)))

    def _checkpoints(self, stage: Stage, number: int) -> Folder:
        return Folder(self.out / "checkpoints", label(stage, number), self.curriculum.settings.keep)

    def _lessons(self, stage: Stage) -> dict[str, Shelf]:
        """By task: the stage's own and the earlier ones', for replay and validation; of two of a task the later's."""
        stages = self.curriculum.stages
        latest = {each.task: each.name for each in (*stages[: stages.index(stage)], stage)}
        if stage.name not in self.lessons:
            raise TrainingError(
                f"There is no data for {stage.task} (there is for {', '.join(self.lessons) or 'nothing'}): add some, or "
                f"leave the stage {stage.name} out."
            )
        return {task: self.lessons[name] for task, name in latest.items() if name in self.lessons}

    def _tell(self, event: str, *args) -> None:
        if ranks.rank() == 0:
            for listener in self.listeners:
                try:
                    getattr(listener, event)(*args)
                except OSError as error:  # training is worth more than what is told of it
                    self._warn(listener, error)

    def _warn(self, listener: Listener, error: OSError) -> None:
        if listener not in self.broken:
            self.broken.append(listener)
            said = "%s cannot write (%s): training goes on without it; make room or mend the folder."
            logging.getLogger(__name__).warning(said, type(listener).__name__, error.strerror or error)


def label(stage: Stage, number: int) -> str:
    """Counted from 1, as people do."""
    return f"{number + 1}-{stage.name}"


def due(trainer: StageTrainer, every: int) -> bool:
    """Every so many iterations, and at the stage's end; 0 never."""
    return every > 0 and (trainer.iteration % every == 0 or trainer.finished)


def following(bank: Bank, path: Path) -> Bank:
    """What a stage left, unless an earlier one was trained only after it."""
    later = Bank.open(path)
    if lost := bank.info.experts.keys() - later.info.experts.keys():
        raise TrainingError(
            f"{path.name} was trained without {', '.join(sorted(lost))}: delete it to train its stage again, or choose "
            f"another folder."
        )
    return later
