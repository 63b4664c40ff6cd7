"""What a run notifies: the terminal, TensorBoard, a node. A listener overrides the methods that it needs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..prw.bank.bank import Bank
from ..prw.personalization.concept import Concept
from .recipes.curriculum import Stage
from .stage_context import IterationResult
from .stage_length import LengthCheck
from .trainer import Trainer
from .validate import Validation


class Listener:
    """Does nothing at any event."""

    def on_stage_begin(self, trainer: Trainer) -> None:
        """Is called before a stage's first iteration and when a stage goes on,
        then with `trainer.iteration` above 0."""

    def on_iteration(self, trainer: Trainer, result: IterationResult) -> None: ...

    def on_validation(self, trainer: Trainer, results: Mapping[str, Validation]) -> None:
        """`results` are by task."""

    def on_length_check(self, trainer: Trainer, check: LengthCheck) -> None:
        """Is called when a stage of length "auto" has asked whether it is over."""

    def on_samples(self, trainer: Trainer, sheet: np.ndarray) -> None:
        """`sheet` is a picture, uint8 (height, width, 3)."""

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None: ...

    def on_stage_end(self, stage: Stage, result: Bank | Concept) -> None: ...

    def wants_stop(self) -> bool:
        """Is asked after every iteration; then everything is saved and the run stops."""
        return False
