"""A curriculum from its first stage to its last, in one folder: it can be stopped anywhere and goes on there.

bank.safetensors           the result so far
stages/N-NAME.safetensors  the bank as it stood after each stage
checkpoints/               where the running stage can go on
log.jsonl, samples/        what happened
run.json                   what this folder is of: another recipe is refused
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from ..prw.attachment import Host
from ..prw.bank import Bank
from ..prw.config import Base, probe_of
from . import ranks
from .checkpoints import Folder, TrainingError, read
from .curriculum import Curriculum, Stage
from .forward import weave
from .growing import empty_bank, grown, refuse_trained
from .lessons import Codec, Lessons
from .listeners import Listener
from .loop import NotFinite, StageTrainer
from .validate import held_out, sample_grid, validate

BANK = "bank.safetensors"


class Stopped(Exception):
    """Someone asked to stop; everything is saved."""


@dataclass
class Run:
    host: Host
    curriculum: Curriculum
    lessons: Mapping[str, Lessons]
    """By task; a stage needs its own."""
    codec: Codec
    out: Path
    seed: int = 0
    name: str = ""
    """Of the base, for the bank."""
    listeners: Sequence[Listener] = ()
    spare: dict | None = None
    """What makes this host give up activations (checkpointing)."""
    done: list[Stage] = field(default_factory=list)

    def train(self, bank: Bank | None = None, only: str = "") -> Bank:
        """All stages that are not done yet, or only one of them; `bank` brings what was trained elsewhere."""
        self._claim(bank)
        bank = bank or empty_bank(Base.of(self.host.flux).probed(self.host.flux, self.name), self.curriculum.settings)
        for number, stage in enumerate(self.curriculum.stages):
            path = self.out / "stages" / f"{number}-{stage.name}.safetensors"
            if path.exists():
                bank = Bank.open(path)
            elif only in ("", stage.name):
                bank = self.train_stage(bank, stage, number)
                self._save(bank, path)
                self._save(bank, self.out / BANK)
                for listener in self.listeners:
                    listener.stage_ended(stage, bank)
            self.done.append(stage)
            if stage.name == only:
                break
        return bank

    def train_stage(self, bank: Bank, stage: Stage, number: int) -> Bank:
        settings = self.curriculum.settings
        refuse_trained(bank, stage)
        lessons = self._lessons(stage)
        bank = grown(bank, stage, settings, self.seed + number, self.dominant(bank, lessons[stage.task]))
        empty = self.codec.texts([""])
        trainer = StageTrainer(self.host, bank, stage, number, settings, lessons, empty, self.seed, self.spare)
        folder = Folder(self.out / "checkpoints", f"{number}-{stage.name}", settings.keep)
        if latest := folder.latest():
            trainer.load(*read(latest))
        for listener in self.listeners:
            listener.stage_began(trainer)
        self._iterate(trainer, folder)
        return trainer.result()

    def _iterate(self, trainer: StageTrainer, folder: Folder) -> None:
        settings = trainer.settings
        while not trainer.finished:
            try:
                step = trainer.step()
            except NotFinite as error:
                self._note(f"not-finite-{trainer.stage.name}.json", {"iteration": trainer.iteration, "ids": error.ids})
                raise
            if step is not None:
                self._tell("stepped", trainer, step)
            if due(trainer, settings.validate_every):
                self._tell("validated", trainer, validate(trainer))
            if ranks.rank() == 0 and due(trainer, settings.sample_every):
                self._tell("sampled", trainer, sample_grid(trainer, self.codec))
            stop = ranks.total(float(any(one.wants_stop() for one in self.listeners)), trainer.device) > 0
            if ranks.rank() == 0 and (stop or due(trainer, settings.save_every)):
                self._tell("saved", trainer, folder.save(trainer.iteration, *trainer.state()))
            if stop and not trainer.finished:
                raise Stopped

    def dominant(self, bank: Bank, lessons: Lessons) -> dict[str, int]:
        """Which column of the last router most samples of the new task take in each block."""
        last = max(bank.info.routers, key=lambda name: len(bank.info.routers[name].experts), default=None)
        if last is None:
            return {}
        from ..prw.source import Routing

        batch, device = held_out(lessons), next(self.host.flux.parameters()).device
        target, source, pooled = (part.to(device) for part in (batch.target, batch.source, batch.pooled))
        with torch.no_grad():
            x, times = self.host.latent_in(target).float(), torch.zeros(len(target), device=device)
            routing = Routing(task=lessons.task, router=last)
            routes = weave(self.host, bank, routing, source, x, times, pooled).routes
        return {block: int(route.expert.flatten().mode().values) for block, route in routes.items()}

    def _lessons(self, stage: Stage) -> dict[str, Lessons]:
        """The stage's own and the earlier ones', for replay and validation."""
        names = [each.task for each in self.curriculum.stages]
        wanted = dict.fromkeys([*names[: [s.name for s in self.curriculum.stages].index(stage.name)], stage.task])
        if stage.task not in self.lessons:
            raise TrainingError(
                f"There is no data for {stage.task} (there is for {', '.join(self.lessons) or 'nothing'}): add some, or "
                f"leave the stage {stage.name} out."
            )
        return {task: self.lessons[task] for task in wanted if task in self.lessons}

    def _claim(self, bank: Bank | None) -> None:
        """Refuses a folder that holds another run."""
        mine = {"recipe": fingerprint(self.curriculum, self.seed), "base": list(probe_of(self.host.flux))}
        path = self.out / "run.json"
        if path.exists():
            theirs = json.loads(path.read_text(encoding="utf-8"))
            if theirs != mine:
                raise TrainingError(
                    f"The folder {self.out} holds a run of another recipe, seed or base: choose another folder, or "
                    f"delete this one."
                )
        elif ranks.rank() == 0:
            self._note("run.json", mine)

    def _note(self, name: str, data) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            partial = self.out / f".{name}.part"
            partial.write_text(json.dumps(data), encoding="utf-8")
            os.replace(partial, self.out / name)
        except OSError as error:
            raise TrainingError(
                f"The folder {self.out} cannot be written to ({error.strerror}): choose another."
            ) from None

    def _save(self, bank: Bank, path: Path) -> None:
        if ranks.rank() == 0:
            bank.save(path)

    def _tell(self, event: str, *args) -> None:
        if ranks.rank() == 0:
            for listener in self.listeners:
                getattr(listener, event)(*args)


def due(trainer: StageTrainer, every: int) -> bool:
    """Every so many iterations, and at the stage's end; 0 never."""
    return every > 0 and (trainer.iteration % every == 0 or trainer.finished)


def fingerprint(curriculum: Curriculum, seed: int) -> str:
    """Of everything that decides the result."""
    settings = {key: value for key, value in asdict(curriculum.settings).items() if key not in FREE}
    stages = [asdict(stage) for stage in curriculum.stages]
    return hashlib.blake2b(json.dumps([settings, stages, seed]).encode(), digest_size=16).hexdigest()


FREE = ("micro", "checkpointing", "compile", "save_every", "keep", "validate_every", "sample_every", "sample_steps")
"""Settings that may change between two parts of a run."""
