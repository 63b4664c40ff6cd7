"""What wants to hear of a training run: the terminal, TensorBoard, a node. A listener overrides what it needs."""

import numpy as np

from ..prw.bank import Bank
from .curriculum import Stage
from .loop import StageTrainer, Step


class Listener:
    def stage_began(self, trainer: StageTrainer) -> None:
        """Also when a stage goes on: `trainer.iteration` says where."""

    def stepped(self, trainer: StageTrainer, step: Step) -> None: ...

    def validated(self, trainer: StageTrainer, found: dict) -> None:
        """validate.Validation by task."""

    def sampled(self, trainer: StageTrainer, grid: np.ndarray) -> None:
        """A picture, uint8 (height, width, 3)."""

    def saved(self, trainer: StageTrainer, path) -> None: ...

    def stage_ended(self, stage: Stage, bank: Bank) -> None: ...

    def wants_stop(self) -> bool:
        """Heard after every iteration; then everything is saved and the run stops."""
        return False
