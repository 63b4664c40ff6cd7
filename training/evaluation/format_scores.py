"""Scores of a few pictures as text."""

from collections.abc import Sequence

from .measure import Score
from .metrics import METRICS, Answer
from .report import explain_missing


def format_table(scores: Sequence[Score]) -> str:
    """Formats a line per metric with its total, then what could not be measured and why."""
    measured = [score for score in scores if not score.reason]
    widest = max((len(METRICS[score.metric].label) for score in measured), default=0)
    lines = [f"{METRICS[score.metric].label:{widest}}  {score.total:.4g}  {_arrow(score)}" for score in measured]
    return "\n".join([*lines, *explain_missing(scores)])


def format_ranking(scores: Sequence[Score], order: Sequence[int], answers: Sequence[Answer]) -> list[str]:
    """Formats a line per picture, the best first, with its figures."""
    lines = []
    for place, i in enumerate(order, 1):
        figures = [
            f"{METRICS[score.metric].label} {score.value_of(answers[i].key):.4g} {_arrow(score)}" for score in scores
        ]
        lines.append(f"{place}. picture {i + 1}: {', '.join(figures)}")
    return lines


def list_values(scores: Sequence[Score], answers: Sequence[Answer]) -> dict[str, list[float | None]]:
    """Lists each answer's own figures by metric, of those that could be measured."""
    return {score.metric: [score.value_of(answer.key) for answer in answers] for score in scores if not score.reason}


def _arrow(score: Score) -> str:
    return "↑" if METRICS[score.metric].higher_is_better else "↓"
