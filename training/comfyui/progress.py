"""A run as the person at the screen sees it: progress, the loss's curve and the samples in turn, and Cancel."""

import time
from collections.abc import Iterable, Sequence
from itertools import accumulate

import comfy.model_management
import comfy.utils
import numpy as np
from PIL import Image

from ..listener import Listener
from ..monitor.history import SMOOTH
from ..monitor.plots import Curve, draw_chart
from ..recipes.curriculum import Stage
from ..stage_context import IterationResult
from ..trainer import Trainer

EVERY = 2.0
"""Seconds between two pictures."""
SIZE = 768


class Watch(Listener):
    def __init__(self, stages: Sequence[Stage], losses: Iterable[float] = ()):
        """`losses` of the part that is done already."""
        self.starts = dict(
            zip((stage.name for stage in stages), accumulate((stage.iterations for stage in stages), initial=0))
        )
        self.bar = comfy.utils.ProgressBar(sum(stage.iterations for stage in stages))
        self.losses = list(losses)
        self.grid: np.ndarray | None = None
        self.turn, self.shown = 0, 0.0

    def on_iteration(self, trainer: Trainer, step: IterationResult) -> None:
        self.losses.append(step.task)
        done = self.starts[trainer.stage.name] + trainer.iteration
        self.bar.update_absolute(done, preview=self._picture(trainer))
        # every iteration: the host itself looks only when a bar has moved enough
        comfy.model_management.throw_exception_if_processing_interrupted()

    def on_samples(self, trainer: Trainer, grid: np.ndarray) -> None:
        self.grid = grid

    def _picture(self, trainer: Trainer) -> tuple[str, Image.Image, int] | None:
        now = time.monotonic()
        if now - self.shown < EVERY and not trainer.finished:
            return None
        self.shown, self.turn = now, self.turn + 1
        if self.grid is not None and self.turn % 2 == 0:
            return ("JPEG", Image.fromarray(self.grid), SIZE)
        title = f"{trainer.stage.name}: {trainer.iteration} of {trainer.stage.iterations}"
        curve = Curve(range(1, len(self.losses) + 1), self.losses)
        return ("JPEG", draw_chart(title, {"loss": curve}, smooth=max(1, len(self.losses) // SMOOTH)), SIZE)
