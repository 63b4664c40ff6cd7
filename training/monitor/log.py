"""log.jsonl: a line an iteration and a line a validation.

    {"stage", "iteration", "task", "veteran", "used", "usage": {expert: share}, "norm", "missed", "seconds"}
    {"stage", "iteration", "validation": {task: {"loss", "usage": {expert: share}}}}

A stage that learns features besides adds "features", the mean of their loss, and "rank", the effective one (coredi).

`iteration` counts those done, the one of the line included. After a kill the log may be ahead of the checkpoint and
end in half a line: where a stage goes on, what it will do again is cut off.
"""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...prw.files.atomic_write import atomic_write
from ..listener import Listener
from ..trainer import Step, Trainer

LOG = "log.jsonl"


class Log(Listener):
    def __init__(self, out: Path):
        self.path = out / LOG
        self.since = 0.0

    def stage_began(self, trainer: Trainer) -> None:
        cut(self.path, trainer.stage.name, trainer.iteration)
        self.since = time.monotonic()

    def stepped(self, trainer: Trainer, step: Step) -> None:
        self._write(
            trainer,
            task=step.task,
            veteran=step.veteran,
            used=step.used,
            usage=named(trainer, step.usage),
            norm=step.norm,
            missed=trainer.missed,
            seconds=round(time.monotonic() - self.since, 4),
            **step.besides,
        )

    def validated(self, trainer: Trainer, found: Mapping) -> None:
        each = {task: {"loss": one.loss, "usage": named(trainer, one.usage)} for task, one in found.items()}
        self._write(trainer, validation=each)

    def saved(self, trainer: Trainer, path: Path) -> None:
        self.since = time.monotonic()

    sampled = saved

    def _write(self, trainer: Trainer, **values: Any) -> None:
        line = {"stage": trainer.stage.name, "iteration": trainer.iteration, **values}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.since = time.monotonic()


def named(trainer: Trainer, usage: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(trainer.columns, usage, strict=True))


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Its whole lines; none if there is no log."""
    if path.exists():
        with open(path, encoding="utf-8", errors="replace") as file:
            yield from filter(None, map(_parsed, file))


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    known = isinstance(found, dict) and isinstance(found.get("stage"), str) and isinstance(found.get("iteration"), int)
    return found if known and line.endswith("\n") else None


def cut(path: Path, stage: str, iteration: int) -> None:
    """Drops a stage's lines beyond an iteration, and what is no line."""
    if not path.exists():
        return
    with atomic_write(path) as partial, open(partial, "w", encoding="utf-8") as file:
        for line in read_log(path):
            if line["stage"] != stage or line["iteration"] <= iteration:
                file.write(json.dumps(line) + "\n")
