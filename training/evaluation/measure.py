"""Measures answers by rows of METRICS: each picture's value, and all values together."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .metrics import METRICS, Answer, Metric
from .networks import MetricNetworks, MetricUnavailable


@dataclass
class Score:
    """What one metric says of a set of answers."""

    metric: str
    """A row of METRICS."""
    total: float = math.nan
    values: dict[str, Any] = field(default_factory=dict)
    """By an answer's key: what the metric aggregates, a number for most."""
    missing: int = 0
    """Pictures that have no value."""
    reason: str = ""
    """Why there is no total; empty: there is one."""

    def value_of(self, key: str) -> float | None:
        """Gives one picture's figure, where the metric has such."""
        show = METRICS[self.metric].per_picture
        return show(self.values[key]) if show and key in self.values else None


def measure(
    names: Sequence[str],
    answers: Iterable[Answer],
    networks: MetricNetworks,
    say: Callable[[str], None] = lambda line: None,
) -> list[Score]:
    """Scores answers by these metrics; one that cannot be measured says why and does not stop the others."""
    scores = {name: Score(name) for name in names}
    for answer in answers:
        for name, score in scores.items():
            if not score.reason:
                _add_value(score, METRICS[name], networks, answer)
        say(f"measured {answer.key}")
    for name, score in scores.items():
        _aggregate(score, METRICS[name].aggregate)
    return list(scores.values())


def _add_value(score: Score, metric: Metric, networks: MetricNetworks, answer: Answer) -> None:
    try:
        value = metric.score(networks, answer)
    except MetricUnavailable as error:
        score.reason = str(error)
    else:
        if value is None:
            score.missing += 1
        else:
            score.values[answer.key] = value


def _aggregate(score: Score, aggregate: Callable[[Sequence], float]) -> None:
    if not score.reason:
        try:
            score.total = aggregate(list(score.values.values())) if score.values else math.nan
        except MetricUnavailable as error:
            score.reason = str(error)
    if not score.reason and math.isnan(score.total):
        score.reason = f"None of the {score.missing} pictures has a value: look at them."
