"""A run as the terminal shows it: one line that changes in place, or a line now and then where nobody watches."""

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from ...prw.bank.bank import Bank
from ..listener import Listener
from ..recipes.curriculum import Stage
from ..trainer import Step, Trainer

LIVE, QUIET = 0.1, 60.0
"""Seconds between two lines, for a person and for a file."""
MEMORY = 0.98
"""Of the loss that is shown: its moving average."""


class Line:
    """Where progress is written."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self.stream, self.clock = stream or sys.stdout, clock
        self.live = self.stream.isatty()
        self.shown, self.open = -QUIET, False

    def show(self, text: str, last: bool = False) -> None:
        """Progress: the next one takes its place, unless it is the last."""
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
        """Something that stays."""
        self.stream.write(("\r\x1b[K" if self.open else "") + text + "\n")
        self.stream.flush()
        self.open = False

    def progress(self, what: str, done: int, total: int) -> None:
        """What is made before the first stage; a total of 0 is not known."""
        self.show(f"{what}  {done}/{total}" if total else f"{what}  {done}", last=0 < total <= done)

    def leave(self) -> None:
        if self.open:
            self.say("")


class Terminal(Listener):
    def __init__(self, stages: Sequence[Stage], line: Line):
        self.names, self.line = [stage.name for stage in stages], line

    def stage_began(self, trainer: Trainer) -> None:
        self.first, self.since = trainer.iteration, self.line.clock()
        self.loss, self.weight = 0.0, 0.0

    def stepped(self, trainer: Trainer, step: Step) -> None:
        self.loss = MEMORY * self.loss + (1 - MEMORY) * step.task
        self.weight = MEMORY * self.weight + 1 - MEMORY
        self.line.show(self._progress(trainer, step), last=trainer.finished)

    def _progress(self, trainer: Trainer, step: Step) -> str:
        stage, done = trainer.stage, trainer.iteration
        seconds = (self.line.clock() - self.since) / max(1, done - self.first)
        parts = [
            f"{stage.name} ({self.names.index(stage.name) + 1} of {len(self.names)})",
            f"{done}/{stage.iterations}",
            f"{span(seconds * (stage.iterations - done))} left",
            f"loss {self.loss / self.weight:.4f}",
        ]
        shares = [f"{name} {share:.0%}" for name, share in zip(trainer.columns, step.usage, strict=True)]
        parts += [f"usage {' '.join(shares)}"] if shares else []
        return "  ".join(parts + [f"{trainer.missed} did not fit into memory"] * (trainer.missed > 0))

    def validated(self, trainer: Trainer, found: Mapping) -> None:
        losses = ", ".join(f"{task} {one.loss:.4f}" for task, one in found.items())
        self.line.say(f"{trainer.stage.name} {trainer.iteration}/{trainer.stage.iterations}  held out: {losses}")

    def stage_ended(self, stage: Stage, bank: Bank) -> None:
        self.line.say(f"{stage.name} is done after {span(self.line.clock() - self.since)}.")


def span(seconds: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
