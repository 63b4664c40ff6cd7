"""Progress in a terminal: one line that changes in place, or a line now and then where the output is a file."""

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from ...prw.bank.bank import Bank
from ...prw.personalization.concept import Concept
from ..listener import Listener
from ..recipes.curriculum import Stage
from ..stage_context import IterationResult
from ..stage_length import LIMIT, STILL, LengthCheck
from ..trainer import Trainer
from ..validate import Validation

LIVE, QUIET = 0.1, 60.0
"""Seconds between two lines, in a terminal and in a file."""
MOMENTUM = 0.98
"""Weight of the past in the loss that is shown, a moving average."""


class ProgressLine:
    """Writes progress to a stream."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self.stream, self.clock = stream or sys.stdout, clock
        self.live = self.stream.isatty()
        self.shown, self.open = -QUIET, False

    def show(self, text: str, last: bool = False) -> None:
        """Writes progress, which the next call replaces unless it is the last; calls in quick succession are skipped."""
        now = self.clock()
        if not last and now - self.shown < (LIVE if self.live else QUIET):
            return
        self.shown, self.open = now, self.live and not last
        if self.live:
            text = text[: shutil.get_terminal_size().columns - 1]
            self.stream.write(f"\r\x1b[K{text}" + ("\n" if last else ""))
        else:
            self.stream.write(text + "\n")
        self.stream.flush()

    def say(self, text: str) -> None:
        """Writes a line that stays."""
        self.stream.write(("\r\x1b[K" if self.open else "") + text + "\n")
        self.stream.flush()
        self.open = False

    def count(self, what: str, done: int, total: int) -> None:
        """Writes how much of something is done; a total of 0 is not known."""
        self.show(f"{what}  {done}/{total}" if total else f"{what}  {done}", last=0 < total <= done)

    def finish(self) -> None:
        """Ends a line that is still to change."""
        if self.open:
            self.say("")


class Terminal(Listener):
    """Shows the progress of a run's stages."""

    def __init__(self, stages: Sequence[Stage], line: ProgressLine):
        self.names, self.line = [stage.name for stage in stages], line

    def on_stage_begin(self, trainer: Trainer) -> None:
        self.first, self.since = trainer.iteration, self.line.clock()
        self.loss, self.weight = 0.0, 0.0

    def on_iteration(self, trainer: Trainer, result: IterationResult) -> None:
        self.loss = MOMENTUM * self.loss + (1 - MOMENTUM) * result.task_loss
        self.weight = MOMENTUM * self.weight + 1 - MOMENTUM
        self.line.show(self._format_progress(trainer, result), last=trainer.finished)

    def _format_progress(self, trainer: Trainer, result: IterationResult) -> str:
        stage, done = trainer.stage, trainer.iteration
        seconds = (self.line.clock() - self.since) / max(1, done - self.first)
        parts = [
            f"{stage.name} ({self.names.index(stage.name) + 1} of {len(self.names)})",
            f"{done}/{trainer.length.end}",
            f"{format_duration(seconds * (trainer.length.end - done))} left",
            f"loss {self.loss / self.weight:.4f}",
        ]
        shares = [f"{name} {share:.0%}" for name, share in zip(trainer.expert_names, result.usage, strict=True)]
        parts += [f"usage {' '.join(shares)}"] if shares else []
        return "  ".join(parts + [f"{trainer.skipped} did not fit into memory"] * (trainer.skipped > 0))

    def on_validation(self, trainer: Trainer, results: Mapping[str, Validation]) -> None:
        losses = ", ".join(f"{task} {validation.loss:.4f}" for task, validation in results.items())
        self.line.say(f"{trainer.stage.name} {trainer.iteration}/{trainer.length.end}  held out: {losses}")

    def on_length_check(self, trainer: Trainer, check: LengthCheck) -> None:
        if check.verdict in (STILL, LIMIT):
            self.line.say(f"{trainer.stage.name} {check.verdict} at {trainer.iteration} and is over at {check.end}.")

    def on_stage_end(self, stage: Stage, result: Bank | Concept) -> None:
        self.line.say(f"{stage.name} is done after {format_duration(self.line.clock() - self.since)}.")


def format_duration(seconds: float) -> str:
    """Formats seconds as hours:minutes:seconds."""
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
