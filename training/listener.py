"""What wants to hear of a training run: the terminal, TensorBoard, a node. A listener overrides what it needs."""

import numpy as np

from ..prw.bank.bank import Bank
from ..prw.personalization.concept import Concept
from .recipes.curriculum import Stage
from .trainer import Step, Trainer


class Listener:
    def stage_began(self, trainer: Trainer) -> None:
        """Also when a stage goes on: `trainer.iteration` says where."""

    def stepped(self, trainer: Trainer, step: Step) -> None: ...

    def validated(self, trainer: Trainer, found: dict) -> None:
        """validate.Validation by task."""

    def sampled(self, trainer: Trainer, grid: np.ndarray) -> None:
        """A picture, uint8 (height, width, 3)."""

    def saved(self, trainer: Trainer, path) -> None: ...

    def stage_ended(self, stage: Stage, result: Bank | Concept) -> None: ...

    def wants_stop(self) -> bool:
        """Heard after every iteration; then everything is saved and the run stops."""
        return False
