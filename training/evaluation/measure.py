"""Answers through METRICS: what each scores, and all together."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .metrics import METRICS, Answer
from .networks import Shelf, Unmeasured


@dataclass
class Score:
    metric: str
    total: float = math.nan
    values: dict[str, Any] = field(default_factory=dict)
    """By picture: group/name. What the metric adds up; numbers for most."""
    without: int = 0
    """Pictures that have none."""
    why: str = ""
    """There is no figure."""

    def each(self, key: str) -> float | None:
        show = METRICS[self.metric].each
        return show(self.values[key]) if show and key in self.values else None


def measure(
    names: Sequence[str], answers: Iterable[Answer], shelf: Shelf, say: Callable[[str], None] = lambda line: None
) -> list[Score]:
    """What one metric lacks does not stop the others."""
    scores = {name: Score(name) for name in names}
    for answer in answers:
        for name, score in scores.items():
            if not score.why:
                _take(score, METRICS[name].score, shelf, answer)
        say(f"measured {key_of(answer)}")
    for name, score in scores.items():
        _total(score, METRICS[name].total)
    return list(scores.values())


def key_of(answer: Answer) -> str:
    return f"{answer.group}/{answer.path.stem}"


def _take(score: Score, how: Callable, shelf: Shelf, answer: Answer) -> None:
    try:
        value = how(shelf, answer)
    except Unmeasured as error:
        score.why = str(error)
    else:
        if value is None:
            score.without += 1
        else:
            score.values[key_of(answer)] = value


def _total(score: Score, total: Callable) -> None:
    if not score.why:
        try:
            score.total = total(list(score.values.values())) if score.values else math.nan
        except Unmeasured as error:
            score.why = str(error)
    if not score.why and math.isnan(score.total):
        score.why = f"None of the {score.without} pictures has a value: look at them."
