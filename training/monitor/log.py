"""log.jsonl: a line an iteration, a line a validation and one for each check of a stage's length.

    {"stage", "iteration", "task", "veteran", "used", "usage": {expert: share}, "norm", "missed", "seconds"}
    {"stage", "iteration", "validation": {task: {"loss", "usage": {expert: share}}}}
    {"stage", "iteration", "length": {"verdict", "end", "loss", "usage", "waited"}}

The third is what a stage of length "auto" decides (stage_length.py); loss and usage are left out at its ceiling.

A stage that also learns features adds "features", the mean of their loss, and "rank", the effective one (coredi).

`iteration` counts those done, the one of the line included. After a kill the log may be ahead of the checkpoint and end
in half a line: a stage that goes on first drops the lines of iterations that it will repeat.
"""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...prw.files.atomic_write import atomic_write
from ..listener import Listener
from ..stage_context import IterationResult
from ..stage_length import LengthCheck, describe_check
from ..trainer import Trainer
from ..validate import Validation

LOG_FILE = "log.jsonl"


class Log(Listener):
    """Appends to log.jsonl in a run's folder."""

    def __init__(self, out: Path):
        self.path = out / LOG_FILE
        self.since = 0.0

    def on_stage_begin(self, trainer: Trainer) -> None:
        truncate_log(self.path, trainer.stage.name, trainer.iteration)
        self.since = time.monotonic()

    def on_iteration(self, trainer: Trainer, result: IterationResult) -> None:
        self._write(
            trainer,
            task=result.task_loss,
            veteran=result.veteran_loss,
            used=result.usage_of_newest,
            usage=name_experts(trainer, result.usage),
            norm=result.norm,
            missed=trainer.skipped,
            seconds=round(time.monotonic() - self.since, 4),
            **result.extra,
        )

    def on_validation(self, trainer: Trainer, results: Mapping[str, Validation]) -> None:
        values = {
            task: {"loss": validation.loss, "usage": name_experts(trainer, validation.usage)}
            for task, validation in results.items()
        }
        self._write(trainer, validation=values)

    def on_length_check(self, trainer: Trainer, check: LengthCheck) -> None:
        self._write(trainer, length=describe_check(check))

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        self.since = time.monotonic()

    def on_samples(self, trainer: Trainer, sheet: np.ndarray) -> None:
        self.since = time.monotonic()

    def _write(self, trainer: Trainer, **values: Any) -> None:
        line = {"stage": trainer.stage.name, "iteration": trainer.iteration, **values}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.since = time.monotonic()


def name_experts(trainer: Trainer, usage: tuple[float, ...]) -> dict[str, float]:
    """Names the shares of a router's columns."""
    return dict(zip(trainer.expert_names, usage, strict=True))


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Yields a log's whole lines; none if there is no log."""
    if path.exists():
        with open(path, encoding="utf-8", errors="replace") as file:
            yield from filter(None, map(_parse_line, file))


def _parse_line(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    is_line = isinstance(values, dict) and isinstance(values.get("stage"), str)
    is_line = is_line and isinstance(values.get("iteration"), int) and line.endswith("\n")
    return values if is_line else None


def truncate_log(path: Path, stage: str, iteration: int) -> None:
    """Drops a stage's lines beyond an iteration, and what is no whole line."""
    if not path.exists():
        return
    with atomic_write(path) as partial, open(partial, "w", encoding="utf-8") as file:
        for line in read_log(path):
            if line["stage"] != stage or line["iteration"] <= iteration:
                file.write(json.dumps(line) + "\n")
