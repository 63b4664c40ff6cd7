"""report.md, report.html and scores.json: our figures beside the paper's row, by which networks, and the pictures."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from ...prw.files.atomic_write import atomic_write
from ..monitor.html_page import render_image, render_page, render_table
from .ablation import ABLATION_HEADS
from .measure import Score
from .metrics import METRICS, Answer
from .networks import CHECKPOINTS, MetricNetworks
from .protocols import Protocol

SHOWN = 48
"""Cases on the page."""
CELL = 192
"""Width of a picture on the page."""
STYLE = f"""
body {{ max-width: 1240px }} .case {{ border-top: 1px solid #333842; padding: .6em 0 }} .case p {{ margin: .2em 0; max-width: 80ch }}
.row {{ display: flex; flex-wrap: wrap; gap: 8px }} figure {{ margin: 0; width: {CELL}px }} figure img {{ width: 100%; margin: 0 }}
figcaption {{ color: #8b909b; font-size: 12px; line-height: 1.35; font-variant-numeric: tabular-nums }}
"""
HEADS = ("measure", "ours", "pictures", "the paper", "in", "measured with")


def make_rows(protocol: Protocol, scores: Sequence[Score], networks: MetricNetworks) -> list[tuple[str, ...]]:
    """Makes the table's lines, in the order of HEADS."""
    table_rows: list[tuple[str, ...]] = []
    for score in scores:
        metric = METRICS[score.metric]
        paper, where = protocol.paper.get(score.metric, ("", ""))
        network = networks.path(metric.network).name if metric.network else "the pixels alone"
        ours = "not measured" if score.reason else f"{score.total:.4g}"
        label = f"{metric.label} {'↑' if metric.higher_is_better else '↓'}"
        table_rows.append(
            (label, ours, "" if score.reason else str(len(score.values)), f"{paper:g}" if where else "", where, network)
        )
    return table_rows


def collect_notes(
    protocol: Protocol, scores: Sequence[Score], networks: MetricNetworks, cases: int, toy: bool
) -> list[str]:
    """Collects reasons why these figures may not be compared with the paper's, and what to know before."""
    notes = []
    if toy:
        notes.append(
            "these are pictures of the toy world: the paper's row is of others, and only shows how to read ours"
        )
    elif protocol.paper and cases != protocol.count:
        notes.append(f"{cases} of {protocol.count} cases: not comparable with the paper, which takes all")
    used_networks = dict.fromkeys(METRICS[score.metric].network for score in scores if METRICS[score.metric].network)
    for key in used_networks:
        ours, usual = networks.path(key).name, CHECKPOINTS[key]
        if ours != usual.name:
            notes.append(f"{ours} instead of {usual.name}: figures of another network")
        elif usual.note:
            notes.append(f"{ours}: {usual.note}")
    notes += [f"{score.metric}: {score.missing} pictures have none" for score in scores if score.missing]
    return [*notes, *protocol.notes]


def write_report(
    out: Path,
    protocol: Protocol,
    scores: Sequence[Score],
    answers: Iterable[Answer],
    networks: MetricNetworks,
    settings: Mapping[str, object],
    ablations: Sequence[tuple[str, ...]] = (),
) -> Path:
    """Writes the three files and returns the page's path; `answers` once more: their pictures are not kept in memory.

    `ablations` are lines in the order of ABLATION_HEADS.
    """
    case_parts, count = [], 0
    for _, case_answers in groupby(answers, key=lambda answer: answer.case.id):
        count += 1
        if count <= SHOWN:
            case_parts.append(_render_case(list(case_answers), scores))
    lines, notes = (
        make_rows(protocol, scores, networks),
        collect_notes(protocol, scores, networks, count, settings["data"] == "toy"),
    )
    missing = explain_missing(scores)
    scores_by_metric = _collect_scores(protocol, scores, notes, settings)
    if ablations:
        scores_by_metric["ablation"] = [dict(zip(ABLATION_HEADS, line)) for line in ablations]
    _write_text(out / "scores.json", json.dumps(scores_by_metric))
    table = "\n".join(["", "## Older experts", "", *_render_rows(ABLATION_HEADS, ablations), ""]) if ablations else ""
    _write_text(out / "report.md", _render_markdown(protocol, lines, notes, missing, settings) + table)
    parts = [f"<h1>{escape(protocol.title)}</h1>", render_table(HEADS, lines), _render_list(notes)]
    if missing:
        parts += ["<h2>Not measured</h2>", _render_list(missing)]
    if ablations:
        parts += ["<h2>Older experts</h2>", render_table(ABLATION_HEADS, ablations)]
    parts += ["<h2>Drawn with</h2>", render_table(("setting", "value"), settings.items())]
    parts += [f"<h2>Pictures ({len(case_parts)} of {count} cases)</h2>", *case_parts]
    path = out / "report.html"
    _write_text(path, render_page(protocol.title, parts, STYLE))
    return path


def explain_missing(scores: Sequence[Score]) -> list[str]:
    """Gives a line a reason: the metrics that have no figure for it."""
    reasons: dict[str, list[str]] = {}
    for score in scores:
        if score.reason:
            reasons.setdefault(score.reason, []).append(METRICS[score.metric].label)
    return [f"{', '.join(labels)}: {why}" for why, labels in reasons.items()]


def _render_case(answers: Sequence[Answer], scores: Sequence[Score]) -> str:
    first = answers[0]
    cells = [_render_figure(first.source, "source")]
    for answer in answers:
        figures = ((METRICS[score.metric].label, score.value_of(answer.key)) for score in scores if not score.reason)
        lines = [f"{label} {value:.4g}" for label, value in figures if value is not None]
        cells.append(_render_figure(answer.pixels, "result", lines))
    if first.case.reference is not None:
        cells.append(_render_figure(first.reference, "reference"))
    name = f"<p><b>{escape(first.case.id)}</b> {escape(first.case.prompt)}</p>"
    return f'<div class="case">{name}<div class="row">{"".join(cells)}</div></div>'


def _render_figure(picture: np.ndarray, title: str, lines: Sequence[str] = ()) -> str:
    kind = "pixels" if picture.shape[1] < CELL else ""
    caption = "<br>".join(escape(line) for line in (title, *lines))
    element = render_image(Image.fromarray(picture), title, kind, widest=CELL)
    return f"<figure>{element}<figcaption>{caption}</figcaption></figure>"


def _render_list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _render_markdown(
    protocol: Protocol,
    lines: Sequence[tuple[str, ...]],
    notes: Sequence[str],
    missing: Sequence[str],
    settings: Mapping,
) -> str:
    body = [f"# {protocol.title}", "", *_render_rows(HEADS, lines), ""]
    body += [f"- {line}" for line in notes]
    if missing:
        body += ["", "Not measured:", "", *(f"- {line}" for line in missing)]
    body += ["", "Drawn with " + ", ".join(f"{name} {value}" for name, value in settings.items()) + ".", ""]
    return "\n".join(body)


def _render_rows(heads: Sequence[str], lines: Sequence[tuple[str, ...]]) -> list[str]:
    return [_render_line(heads), "|---" * len(heads) + "|", *map(_render_line, lines)]


def _render_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _collect_scores(
    protocol: Protocol, scores: Sequence[Score], notes: Sequence[str], settings: Mapping
) -> dict[str, object]:
    figures = {
        score.metric: {
            "total": None if score.reason else score.total,
            "pictures": len(score.values),
            "paper": protocol.paper.get(score.metric, (None,))[0],
            "why": score.reason,
            "each": {key: score.value_of(key) for key in score.values if METRICS[score.metric].per_picture},
        }
        for score in scores
    }
    return {"benchmark": protocol.title, "settings": dict(settings), "notes": list(notes), "scores": figures}


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
