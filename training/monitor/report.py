"""report.html: a run on one page that needs no other file. All text is escaped."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

from PIL import Image

from ...prw.bank.bank import Bank
from ...prw.files.atomic_write import atomic_write
from ...prw.personalization.concept import Concept
from ..listener import Listener
from ..recipes.curriculum import Curriculum, Stage
from ..recipes.subject import OWN
from ..trainer import Trainer
from .history import History
from .html_page import render_image, render_page, render_table
from .log import LOG_FILE, read_log
from .plots import Values
from .samples import find_latest
from .terminal import format_duration

REPORT = "report.html"
Maps = Sequence[tuple[str, str, str]]
"""Stages, data sets and what drew their control maps (setup/describe_maps.py)."""
LEGEND = "a row a task; source, drawn, target, in turn"
LEGENDS = {OWN: "some of the photos; below, what the prompts give"}
"""What samples show: by task, where it is not the same."""


class Report(Listener):
    """Writes the page when a stage ends, and when it is asked to."""

    def __init__(self, out: Path, curriculum: Curriculum, seed: int, recipe: str, maps: Maps = ()):
        self.path, self.curriculum, self.seed, self.recipe, self.maps = out / REPORT, curriculum, seed, recipe, maps
        self.began = False
        """Whether a stage has begun: before, the folder may be another run's."""

    def on_stage_begin(self, trainer: Trainer) -> None:
        self.began = True

    def on_stage_end(self, stage: Stage, result: Bank | Concept) -> None:
        self.write()

    def write(self) -> None:
        try:
            write_report(self.path, self.curriculum, self.seed, self.recipe, self.maps)
        except OSError as error:  # the bank is worth more
            logging.getLogger(__name__).warning("%s was not written (%s).", self.path, error.strerror or error)


def write_report(path: Path, curriculum: Curriculum, seed: int, recipe: str, maps: Maps = ()) -> None:
    """Writes the page of the run in the path's folder."""
    with atomic_write(path) as partial:
        partial.write_text(render_report(path.parent, curriculum, seed, recipe, maps), encoding="utf-8")


def render_report(out: Path, curriculum: Curriculum, seed: int, recipe: str, maps: Maps = ()) -> str:
    history = History.from_log(read_log(out / LOG_FILE))
    parts = [f"<h1>CoLoGen training: {escape(recipe)}</h1>", _render_stages(curriculum, history)]
    if maps:
        parts += ["<h2>Control maps</h2>", render_table(("stage", "data", "drawn by"), maps)]
    for title, picture in history.draw_charts().items():
        parts.append(render_image(picture, title))
    parts += ["<h2>Held out</h2>", _render_validations(history), "<h2>Samples</h2>"]
    for stage in curriculum.stages:
        if path := find_latest(out, stage.name):
            with Image.open(path) as picture:
                parts += [f"<p>{escape(stage.name)}: {LEGENDS.get(stage.task, LEGEND)}</p>"]
                parts.append(render_image(picture, f"samples of {stage.name}", "pixels"))
    own = {f"{curriculum.base}.{key}": value for key, value in curriculum.own_base.items()}
    settings = {"seed": seed, **asdict(curriculum.settings), **own}
    parts += ["<h2>Recipe</h2>", render_table(("setting", "value"), settings.items())]
    return render_page(recipe, parts)


def _render_stages(curriculum: Curriculum, history: History) -> str:
    heads = "stage task iterations batch rho veteran replay loss usage time missed".split()
    rows = []
    for stage in curriculum.stages:
        row = [stage.name, stage.task, stage.iterations, stage.batch, stage.rho, stage.veteran, stage.replay]
        if curve := history.loss.get(stage.name):
            done, start = f"{curve.x[-1] - history.starts[stage.name]:.0f}", history.starts[stage.name]
            row[2] = f"{done}, ceiling {stage.ceiling}" if stage.ceiling else f"{done} of {stage.iterations}"
            if stage.name in history.ends:
                x, verdict, end = history.ends[stage.name]
                row[2] += f": {verdict} at {x - start}, over at {end}"
            row += [f"{average_last_tenth(curve.y):.4f}", f"{average_last_tenth(history.newest[stage.name].y):.0%}"]
            row += [format_duration(history.seconds[stage.name]), history.missed[stage.name]]
        rows.append(row)
    return render_table(heads, rows)


def average_last_tenth(values: Values) -> float:
    last = values[-max(1, len(values) // 10) :]
    return float(sum(last) / len(last))


def _render_validations(history: History) -> str:
    """Renders a row a task, a column a stage: each stage's last validation of every task so far."""
    tasks = dict.fromkeys(task for validation in history.last.values() for task in validation)
    if not tasks:
        return "<p>No validation yet.</p>"
    rows = [
        (task, *(_format_validation(validation.get(task)) for validation in history.last.values())) for task in tasks
    ]
    return render_table(("task", *(f"after {stage}" for stage in history.last)), rows)


def _format_validation(result: tuple[float, dict[str, float]] | None) -> str:
    if result is None:
        return ""
    loss, usage = result
    return f"{loss:.4f} ({' '.join(f'{name} {share:.0%}' for name, share in usage.items())})"
