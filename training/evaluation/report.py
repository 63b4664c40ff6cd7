"""report.md, report.html and scores.json: our figures beside the paper's row, what measured them, and the pictures."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from ...prw.files.atomic_write import whole
from ..monitor.html_page import image, table, whole_page
from .measure import Score, key_of
from .metrics import METRICS, Answer
from .networks import CHECKPOINTS, Shelf
from .protocols import Protocol

SHOWN = 48
"""Cases on the page."""
CELL = 192
STYLE = f"""
body {{ max-width: 1240px }} .case {{ border-top: 1px solid #333842; padding: .6em 0 }} .case p {{ margin: .2em 0; max-width: 80ch }}
.row {{ display: flex; flex-wrap: wrap; gap: 8px }} figure {{ margin: 0; width: {CELL}px }} figure img {{ width: 100%; margin: 0 }}
figcaption {{ color: #8b909b; font-size: 12px; line-height: 1.35; font-variant-numeric: tabular-nums }}
"""
HEADS = ("measure", "ours", "pictures", "the paper", "in", "measured with")


def rows(protocol: Protocol, scores: Sequence[Score], shelf: Shelf) -> list[tuple[str, ...]]:
    out = []
    for score in scores:
        metric = METRICS[score.metric]
        paper, where = protocol.paper.get(score.metric, ("", ""))
        used = shelf.path(metric.needs).name if metric.needs else "the pixels alone"
        ours = "not measured" if score.why else f"{score.total:.4g}"
        label = f"{metric.label} {'↑' if metric.rises else '↓'}"
        out.append(
            (label, ours, "" if score.why else str(len(score.values)), f"{paper:g}" if where else "", where, used)
        )
    return out


def notes(protocol: Protocol, scores: Sequence[Score], shelf: Shelf, cases: int, toy: bool) -> list[str]:
    """What stands between these figures and the paper's."""
    said = []
    if toy:
        said.append(
            "these are pictures of the toy world: the paper's row is of others, and only shows how to read ours"
        )
    elif cases != protocol.count:
        said.append(f"{cases} of {protocol.count} cases: not comparable with the paper, which takes all")
    used = dict.fromkeys(METRICS[score.metric].needs for score in scores if METRICS[score.metric].needs)
    for key in used:
        ours, usual = shelf.path(key).name, CHECKPOINTS[key]
        if ours != usual.name:
            said.append(f"{ours} instead of {usual.name}: figures of another network")
        elif usual.note:
            said.append(f"{ours}: {usual.note}")
    said += [f"{score.metric}: {score.without} pictures have none" for score in scores if score.without]
    return [*said, *protocol.notes]


def write_report(
    out: Path,
    protocol: Protocol,
    scores: Sequence[Score],
    answers: Iterable[Answer],
    shelf: Shelf,
    settings: Mapping[str, object],
) -> Path:
    """`answers` once more, case by case: their pictures are not kept in memory."""
    shown, count = [], 0
    for _, some in groupby(answers, key=lambda answer: answer.case.id):
        count += 1
        if count <= SHOWN:
            shown.append(_case(list(some), scores))
    lines, told = rows(protocol, scores, shelf), notes(protocol, scores, shelf, count, settings["data"] == "toy")
    missing = not_measured(scores)
    _write(out / "scores.json", _json(protocol, scores, told, settings))
    _write(out / "report.md", _markdown(protocol, lines, told, missing, settings))
    parts = [f"<h1>{escape(protocol.title)}</h1>", table(HEADS, lines), _list(told)]
    if missing:
        parts += ["<h2>Not measured</h2>", _list(missing)]
    parts += ["<h2>Drawn with</h2>", table(("setting", "value"), settings.items())]
    parts += [f"<h2>Pictures ({len(shown)} of {count} cases)</h2>", *shown]
    path = out / "report.html"
    _write(path, whole_page(protocol.title, parts, STYLE))
    return path


def not_measured(scores: Sequence[Score]) -> list[str]:
    """A line a reason."""
    reasons: dict[str, list[str]] = {}
    for score in scores:
        if score.why:
            reasons.setdefault(score.why, []).append(METRICS[score.metric].label)
    return [f"{', '.join(labels)}: {why}" for why, labels in reasons.items()]


def _case(answers: Sequence[Answer], scores: Sequence[Score]) -> str:
    first = answers[0]
    cells = [_figure(first.source, "source")]
    for answer in answers:
        found = ((METRICS[score.metric].label, score.each(key_of(answer))) for score in scores if not score.why)
        lines = [f"{label} {value:.4g}" for label, value in found if value is not None]
        cells.append(_figure(answer.drawn, "result", lines))
    if first.case.reference is not None:
        cells.append(_figure(first.reference, "reference"))
    name = f"<p><b>{escape(first.case.id)}</b> {escape(first.case.prompt)}</p>"
    return f'<div class="case">{name}<div class="row">{"".join(cells)}</div></div>'


def _figure(picture: np.ndarray, title: str, lines: Sequence[str] = ()) -> str:
    kind = "pixels" if picture.shape[1] < CELL else ""
    words = "<br>".join(escape(line) for line in (title, *lines))
    shown = image(Image.fromarray(picture), title, kind, widest=CELL)
    return f"<figure>{shown}<figcaption>{words}</figcaption></figure>"


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _markdown(protocol: Protocol, lines, told: Sequence[str], missing: Sequence[str], settings: Mapping) -> str:
    body = [f"# {protocol.title}", "", _line(HEADS), "|---" * len(HEADS) + "|", *map(_line, lines), ""]
    body += [f"- {line}" for line in told]
    if missing:
        body += ["", "Not measured:", "", *(f"- {line}" for line in missing)]
    body += ["", "Drawn with " + ", ".join(f"{name} {value}" for name, value in settings.items()) + ".", ""]
    return "\n".join(body)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _json(protocol: Protocol, scores: Sequence[Score], told: Sequence[str], settings: Mapping) -> str:
    found = {
        score.metric: {
            "total": None if score.why else score.total,
            "pictures": len(score.values),
            "paper": protocol.paper.get(score.metric, (None,))[0],
            "why": score.why,
            "each": {key: score.each(key) for key in score.values if METRICS[score.metric].each},
        }
        for score in scores
    }
    return json.dumps({"benchmark": protocol.title, "settings": dict(settings), "notes": list(told), "scores": found})


def _write(path: Path, text: str) -> None:
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
