"""Progress bars of the host that Cancel interrupts; that of a training run shows its loss and its samples in turn."""

import time
from collections.abc import Callable, Iterable, Sequence
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

PREVIEW_SECONDS = 2.0
"""Seconds between two previews."""
PREVIEW_SIZE = 768


class RunProgress(Listener):
    """The progress of a run on the host's bar."""

    def __init__(self, stages: Sequence[Stage], losses: Iterable[float] = ()):
        """`losses` of the part that is done already."""
        self.starts = dict(
            zip((stage.name for stage in stages), accumulate((stage.iterations for stage in stages), initial=0))
        )
        self.bar = comfy.utils.ProgressBar(sum(stage.iterations for stage in stages))
        self.losses = list(losses)
        self.sheet: np.ndarray | None = None
        self.previews, self.shown_at = 0, 0.0

    def on_iteration(self, trainer: Trainer, result: IterationResult) -> None:
        self.losses.append(result.task_loss)
        done = self.starts[trainer.stage.name] + min(trainer.iteration, trainer.stage.iterations)
        self.bar.update_absolute(done, preview=self._make_preview(trainer))
        # every iteration: the host itself looks only when a bar has moved enough
        comfy.model_management.throw_exception_if_processing_interrupted()

    def on_samples(self, trainer: Trainer, sheet: np.ndarray) -> None:
        self.sheet = sheet

    def _make_preview(self, trainer: Trainer) -> tuple[str, Image.Image, int] | None:
        now = time.monotonic()
        if now - self.shown_at < PREVIEW_SECONDS and not trainer.finished:
            return None
        self.shown_at, self.previews = now, self.previews + 1
        if self.sheet is not None and self.previews % 2 == 0:
            return ("JPEG", Image.fromarray(self.sheet), PREVIEW_SIZE)
        title = f"{trainer.stage.name}: {trainer.iteration} of {trainer.length.end}"
        curve = Curve(range(1, len(self.losses) + 1), self.losses)
        return ("JPEG", draw_chart(title, {"loss": curve}, smooth=max(1, len(self.losses) // SMOOTH)), PREVIEW_SIZE)


def open_progress_bar() -> Callable[[int, int], None]:
    """Opens a bar of the host, as a function of what is done and how much there is."""
    bar = comfy.utils.ProgressBar(1)

    def update(done: int, total: int) -> None:
        bar.update_absolute(done, total)
        comfy.model_management.throw_exception_if_processing_interrupted()

    return update


def open_counting_bar(total: int) -> Callable[[str], None]:
    """Opens a bar of the host, as a function that is called once for each thing that is done."""
    bar = comfy.utils.ProgressBar(total)

    def update(_: str) -> None:
        bar.update(1)
        comfy.model_management.throw_exception_if_processing_interrupted()

    return update
