"""Contrasts: what rows differ by, with an interval over seeds, and what that says of a claim.

Rows of a seed are asked the same questions and share their random numbers, so a table of means, row by seed, is a randomised block
design: its error is what is left when the means of rows and of seeds are taken off. It has the spread of questions and that of training in it.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy import stats

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
    """The middle 95 % of Student's distribution round it."""
    p: float
    """Two-sided."""
    seeds: tuple[float, ...]
    """The same sum of each seed alone."""

    def judge(self, p: float) -> str:
        """Says what it shows, by its p among the family's (correct_family); nothing, if the seeds disagree in sign."""
        agree = all(seed * self.value > 0 for seed in self.seeds)
        return "cannot tell" if p > LEVEL or not agree else "yes" if self.value > 0 else "no"


def measure_contrasts(rows: Mapping[str, Answers], contrasts: Mapping[str, Mapping[str, float]]) -> dict[str, Contrast]:
    """Adds up rows by the weights of each contrast."""
    means = np.array([[answers.mean() for answers in seeds] for seeds in rows.values()])
    count = means.shape[1]
    error, freedom = measure_error(means)
    found = {}
    for name, weights in contrasts.items():
        signs = np.array([weights.get(row, 0.0) for row in rows])
        seeds, spread = signs @ means, error * np.sqrt(signs @ signs / count)
        value, reach = float(seeds.mean()), spread * float(stats.t.ppf(0.975, freedom))
        p = 2 * float(stats.t.sf(abs(value) / spread, freedom)) if spread else float(value == 0)
        found[name] = Contrast(value, value - reach, value + reach, p, tuple(map(float, seeds)))
    return found


def measure_error(means: np.ndarray) -> tuple[float, int]:
    """Gives the standard deviation of a row's mean in a seed (rows, seeds) beyond what row and seed have in common, and its degrees of freedom."""
    rows, seeds = means.shape
    left = means - means.mean(0) - means.mean(1, keepdims=True) + means.mean()
    freedom = (rows - 1) * (seeds - 1)
    return float(np.sqrt((left**2).sum() / freedom)), freedom


def correct_family(contrasts: Mapping[Key, Contrast]) -> dict[Key, float]:
    """Corrects a family's p (Holm): the smallest times their number, the next times one less, and so on, never falling."""
    corrected, least = {}, 0.0
    for place, (name, contrast) in enumerate(sorted(contrasts.items(), key=lambda item: item[1].p)):
        least = max(least, min(1.0, contrast.p * (len(contrasts) - place)))
        corrected[name] = least
    return {name: corrected[name] for name in contrasts}
