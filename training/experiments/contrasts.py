"""Contrasts: what rows differ by, with an interval over seeds and questions, and what that says of a claim."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from ..from_scratch.evaluate import bootstrap_means

DRAWS = 10_000
LEVEL = 0.05
"""Of a family of contrasts, the chance that one of them shows where nothing is."""
Key = TypeVar("Key", bound=Hashable)
Answers = Sequence[np.ndarray]
"""By seed: a measure of each question."""


class Contrast(NamedTuple):
    """A weighted sum of rows' means."""

    value: float
    low: float
    high: float
    """The middle 95 % of what resampled seeds and questions give."""
    p: float
    """Two-sided: how often resampled values lie on the other side of 0, twice."""
    seeds: tuple[float, ...]
    """The same sum of each seed alone."""

    def judge(self, p: float) -> str:
        """Says what it shows, by its p among the family's (correct_family); nothing, if the seeds disagree in sign."""
        agree = all(seed * self.value > 0 for seed in self.seeds)
        return "cannot tell" if p > LEVEL or not agree else "yes" if self.value > 0 else "no"


def measure_contrast(rows: Mapping[str, Answers], weights: Mapping[str, float]) -> Contrast:
    """Adds up rows by their weights: question by question, which all rows of a seed were asked alike."""
    seeds = len(next(iter(rows.values())))
    signs = np.array(list(weights.values()))
    differences = [signs @ np.stack([rows[row][seed] for row in weights]) for seed in range(seeds)]
    draws = bootstrap_means(*differences, draws=DRAWS)
    low, high = np.quantile(draws, [0.025, 0.975])
    beyond = min((draws <= 0).mean(), (draws >= 0).mean())
    means = tuple(float(part.mean()) for part in differences)
    return Contrast(float(np.mean(means)), float(low), float(high), min(1.0, 2 * float(beyond) + 1 / DRAWS), means)


def correct_family(contrasts: Mapping[Key, Contrast]) -> dict[Key, float]:
    """Corrects a family's p (Holm): the smallest times their number, the next times one less, and so on, never falling."""
    corrected, least = {}, 0.0
    for place, (name, contrast) in enumerate(sorted(contrasts.items(), key=lambda item: item[1].p)):
        least = max(least, min(1.0, contrast.p * (len(contrasts) - place)))
        corrected[name] = least
    return {name: corrected[name] for name in contrasts}
