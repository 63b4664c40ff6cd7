"""report.html: a run on one page that needs nothing beside it. Whatever comes from outside is escaped."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

from PIL import Image

from ...prw.bank.bank import Bank
from ...prw.files.atomic_write import atomic_write
from ..listener import Listener
from ..recipes.curriculum import Curriculum, Stage
from ..recipes.subject import OWN
from ..trainer import Trainer
from .history import History
from .html_page import image, table, whole_page
from .log import LOG, read_log
from .samples import latest
from .terminal import span

REPORT = "report.html"
LEGEND = "a row a task; source, drawn, target, in turn"
LEGENDS = {OWN: "some of the photos; below, what the prompts give"}
"""What samples show: by task, where it is not the same."""


class Report(Listener):
    def __init__(self, out: Path, curriculum: Curriculum, seed: int, recipe: str):
        self.path, self.curriculum, self.seed, self.recipe = out / REPORT, curriculum, seed, recipe
        self.began = False

    def stage_began(self, trainer: Trainer) -> None:
        self.began = True

    def stage_ended(self, stage: Stage, bank: Bank) -> None:
        self.write()

    def write(self) -> None:
        try:
            write_report(self.path, self.curriculum, self.seed, self.recipe)
        except OSError as error:  # the bank is worth more
            logging.getLogger(__name__).warning("%s was not written (%s).", self.path, error.strerror or error)


def write_report(path: Path, curriculum: Curriculum, seed: int, recipe: str) -> None:
    """Of the run in its folder."""
    with atomic_write(path) as partial:
        partial.write_text(page(path.parent, curriculum, seed, recipe), encoding="utf-8")


def page(out: Path, curriculum: Curriculum, seed: int, recipe: str) -> str:
    history = History.of(read_log(out / LOG))
    parts = [f"<h1>CoLoGen training: {escape(recipe)}</h1>", _stages(curriculum, history)]
    for title, picture in history.pictures().items():
        parts.append(image(picture, title))
    parts += ["<h2>Held out</h2>", _validations(history), "<h2>Samples</h2>"]
    for stage in curriculum.stages:
        if path := latest(out, stage.name):
            with Image.open(path) as picture:
                parts += [f"<p>{escape(stage.name)}: {LEGENDS.get(stage.task, LEGEND)}</p>"]
                parts.append(image(picture, f"samples of {stage.name}", "pixels"))
    settings = {"seed": seed, **asdict(curriculum.settings), **{f"toy.{k}": v for k, v in curriculum.toy.items()}}
    parts += ["<h2>Recipe</h2>", table(("setting", "value"), settings.items())]
    return whole_page(recipe, parts)


def _stages(curriculum: Curriculum, history: History) -> str:
    heads = "stage task iterations batch rho veteran replay loss usage time missed".split()
    rows = []
    for stage in curriculum.stages:
        row = [stage.name, stage.task, stage.iterations, stage.batch, stage.rho, stage.veteran, stage.replay]
        if curve := history.loss.get(stage.name):
            row[2] = f"{curve.x[-1] - history.starts[stage.name]:.0f} of {stage.iterations}"
            row += [f"{mean(curve.y):.4f}", f"{mean(history.newest[stage.name].y):.0%}"]
            row += [span(history.seconds[stage.name]), history.missed[stage.name]]
        rows.append(row)
    return table(heads, rows)


def mean(values: Sequence[float]) -> float:
    """Of the last tenth."""
    some = values[-max(1, len(values) // 10) :]
    return sum(some) / len(some)


def _validations(history: History) -> str:
    """A row a task, a column a stage: what each stage's last validation says of every task so far."""
    tasks = dict.fromkeys(task for found in history.last.values() for task in found)
    if not tasks:
        return "<p>No validation yet.</p>"
    rows = [(task, *(_validation(found.get(task)) for found in history.last.values())) for task in tasks]
    return table(("task", *(f"after {stage}" for stage in history.last)), rows)


def _validation(found: tuple[float, dict[str, float]] | None) -> str:
    if found is None:
        return ""
    loss, usage = found
    return f"{loss:.4f} ({' '.join(f'{name} {share:.0%}' for name, share in usage.items())})"
