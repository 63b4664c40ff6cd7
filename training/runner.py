"""A trainer at work in a folder: it goes on from its last checkpoint, tells its listeners, and stops when asked.

What is trained is a subclass's matter: a curriculum (run.py) or one's own subject (subject/run.py).
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..prw.source_pass import Host
from .checkpoint.checkpoints import Folder, TrainingError, read
from .checkpoint.run_folder import RunFolder
from .data.encoded.dataset import EncodedDataset
from .distributed import ranks
from .encoders.protocol import Encoders
from .errors import NotFinite, Stopped
from .listener import Listener
from .recipes.curriculum import Settings, Stage
from .trainer import Trainer
from .validate import Validation


@dataclass
class Runner(ABC):
    host: Host
    recipe: Any
    """What is trained: a Curriculum, or a SubjectRecipe."""
    lessons: Mapping[str, EncodedDataset]
    encoders: Encoders
    out: Path
    seed: int = 0
    name: str = ""
    """Of the base, for what is made."""
    listeners: Sequence[Listener] = ()
    spare: dict | None = None
    """What makes this host give up activations (checkpointing)."""
    breaks: tuple[type[BaseException], ...] = ()
    """What this host raises, anywhere within an iteration, to stop: everything before it is saved."""
    broken: list[Listener] = field(default_factory=list)
    """Those that could not write."""
    unseen: bool = field(default=False, init=False)
    """Whether an iteration is done, and what is due at it is not."""

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.out)

    @abstractmethod
    def validation(self, trainer: Trainer) -> dict[str, Validation]: ...

    @abstractmethod
    def sheet(self, trainer: Trainer) -> np.ndarray:
        """What it draws by now, uint8 (height, width, 3)."""

    def go_on(self, trainer: Trainer, folder: Folder) -> None:
        """To the end, from where the folder's last checkpoint is."""
        if latest := ranks.from_first(folder.latest()):
            tensors, state = read(latest)
            trainer.load(tensors, state)
            self.unseen = state.get("unseen", False)
        self.tell("stage_began", trainer)
        try:
            if self.unseen:
                self._look(trainer)
            self._iterate(trainer, folder)
        except (TrainingError, *self.breaks) as error:
            self._rescue(trainer, folder, error)
            raise

    def _iterate(self, trainer: Trainer, folder: Folder) -> None:
        settings = trainer.settings
        while not trainer.finished:
            step = trainer.step()
            if step is not None:
                self.tell("stepped", trainer, step)
            self._look(trainer)
            stop = self.asked_to_stop()
            if ranks.rank() == 0 and (stop or due(trainer, settings.save_every)):
                self.tell("saved", trainer, folder.save(trainer.iteration, *trainer.state()))
            if stop and not trainer.finished:
                ranks.wait()  # the first process to leave ends the others
                raise Stopped

    def _look(self, trainer: Trainer) -> None:
        """What is due at this iteration; if something ends the run meanwhile it is still due when it goes on."""
        self.unseen = True
        if due(trainer, trainer.settings.validate_every):
            self._tell_found("validated", self.validation, trainer)
        if (ranks.rank() == 0 or trainer.sharded) and due(trainer, trainer.settings.sample_every):
            self._tell_found("sampled", self.sheet, trainer)
        self.unseen = False

    def _tell_found(self, event: str, find: Callable[[Trainer], Any], trainer: Trainer) -> None:
        try:
            found = find(trainer)
        except torch.OutOfMemoryError:
            if ranks.count() > 1:  # others may wait for this one
                raise
            said = "Memory ran out while iteration %s was %s: training goes on without it; set micro smaller."
            logging.getLogger(__name__).warning(said, trainer.iteration, event)
        else:
            self.tell(event, trainer, found)

    def _rescue(self, trainer: Trainer, folder: Folder, error: BaseException) -> None:
        """The weights are still those of the last good iteration."""
        if isinstance(error, NotFinite):
            self.folder.note(error.file, {"iteration": trainer.iteration, "ids": error.ids})
        if ranks.rank() == 0:
            with suppress(TrainingError):
                tensors, state = trainer.state()
                folder.save(trainer.iteration, tensors, {**state, "unseen": self.unseen})

    def asked_to_stop(self) -> bool:
        asked = any(listener.wants_stop() for listener in self.listeners)
        return bool(ranks.total(float(asked), self.host.device))

    def checkpoints(self, stage: Stage, number: int, settings: Settings) -> Folder:
        return Folder(self.out / "checkpoints", label(stage, number), settings.keep)

    def tell(self, event: str, *args) -> None:
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


def due(trainer: Trainer, every: int) -> bool:
    """Every so many iterations, and at the stage's end; 0 never."""
    return every > 0 and (trainer.iteration % every == 0 or trainer.finished)
