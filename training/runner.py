"""A trainer at work in a folder: it goes on from its last checkpoint, tells its listeners, and stops when asked.

What is trained is a subclass's matter: a curriculum (run.py) or one's own subject (subject/run.py).
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..prw.attachment import Host
from . import ranks
from .checkpoints import Folder, TrainingError, read
from .curriculum import Settings, Stage
from .forward import device_of
from .lessons import Codec
from .mishaps import NotFinite, Stopped
from .run_folder import RunFolder
from .trainer import Trainer
from .validate import Validation
from .watching.listeners import Listener


class Runner(ABC):
    host: Host
    codec: Codec
    out: Path
    listeners: Sequence[Listener]
    breaks: tuple[type[BaseException], ...]
    """What this host raises, anywhere within an iteration, to stop: everything before it is saved."""
    broken: list[Listener]
    """Those that could not write."""

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
            trainer.load(*read(latest))
        self.tell("stage_began", trainer)
        try:
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
            if due(trainer, settings.validate_every):
                self.tell("validated", trainer, self.validation(trainer))
            if (ranks.rank() == 0 or trainer.sharded) and due(trainer, settings.sample_every):
                self.tell("sampled", trainer, self.sheet(trainer))
            stop = self.asked_to_stop()
            if ranks.rank() == 0 and (stop or due(trainer, settings.save_every)):
                self.tell("saved", trainer, folder.save(trainer.iteration, *trainer.state()))
            if stop and not trainer.finished:
                ranks.wait()  # the first process to leave ends the others
                raise Stopped

    def _rescue(self, trainer: Trainer, folder: Folder, error: BaseException) -> None:
        """The weights are still those of the last good iteration."""
        if isinstance(error, NotFinite):
            self.folder.note(error.file, {"iteration": trainer.iteration, "ids": error.ids})
        if ranks.rank() == 0:
            with suppress(TrainingError):
                folder.save(trainer.iteration, *trainer.state())

    def asked_to_stop(self) -> bool:
        asked = any(listener.wants_stop() for listener in self.listeners)
        return bool(ranks.total(float(asked), device_of(self.host)))

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
