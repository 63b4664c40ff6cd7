"""Contrasts: what rows differ by, with an interval over seeds, and what that says of a claim.

Rows of a seed are asked the same questions and share their random numbers: a table of means, row by seed, is a randomised block design.
What is left when the means of rows and of seeds are taken off is chance, of questions and of training. It is not the same for all rows, since shares
near 0 or 1 vary little: each row has its own, and degrees of freedom are Welch's. Rows that share a stage of training that others do not
are not independent: a contrast of such rows is *paired*, Student's test of its value of every seed.
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
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
    """Between which it lies with 95 %."""
    p: float
    """Two-sided."""
    seeds: tuple[float, ...]
    """The same sum of each seed alone."""

    def judge(self, p: float) -> str:
        """Says what it shows, by its p among the family's (correct_family); nothing, if the seeds disagree in sign."""
        agree = all(seed * self.value > 0 for seed in self.seeds)
        return "cannot tell" if p > LEVEL or not agree else "yes" if self.value > 0 else "no"


def measure_contrasts(
    rows: Mapping[str, Answers], contrasts: Mapping[str, Mapping[str, float]], paired: Collection[str] = ()
) -> dict[str, Contrast]:
    """Adds up rows by the weights of each contrast."""
    means = np.array([[answers.mean() for answers in seeds] for seeds in rows.values()])
    variances, freedom = measure_chance(means)
    results = {}
    for name, weights in contrasts.items():
        signs = np.array([weights.get(row, 0.0) for row in rows])
        seeds, parts = signs @ means, signs**2 * variances / means.shape[1]
        if name in paired:
            results[name] = make_contrast(seeds, seeds.var(ddof=1) / len(seeds), len(seeds) - 1)
        else:
            welch = parts.sum() ** 2 / (parts**2 / freedom).sum() if parts.any() else freedom
            results[name] = make_contrast(seeds, parts.sum(), welch)
    return results


def make_contrast(seeds: np.ndarray, variance: float, freedom: float) -> Contrast:
    """Makes a contrast of its value of every seed, the variance of their mean, and its degrees of freedom."""
    value, error = float(seeds.mean()), float(np.sqrt(variance))
    reach = error * float(stats.t.ppf(0.975, freedom))
    p = 2 * float(stats.t.sf(abs(value) / error, freedom)) if error else float(value == 0)
    return Contrast(value, value - reach, value + reach, p, tuple(map(float, seeds)))


def measure_chance(means: np.ndarray) -> tuple[np.ndarray, float]:
    """Measures how much each row's means (rows, seeds) vary beyond what row and seed bring: variances, and the degrees of freedom of each."""
    rows, seeds = means.shape
    left = means - means.mean(0) - means.mean(1, keepdims=True) + means.mean()
    freedom = (rows - 1) * (seeds - 1) / rows
    return (left**2).sum(1) / freedom, freedom


def correct_family(contrasts: Mapping[Key, Contrast]) -> dict[Key, float]:
    """Corrects a family's p (Holm): the smallest times their number, the next times one less, and so on, never falling."""
    corrected, least = {}, 0.0
    for place, (name, contrast) in enumerate(sorted(contrasts.items(), key=lambda item: item[1].p)):
        least = max(least, min(1.0, contrast.p * (len(contrasts) - place)))
        corrected[name] = least
    return {name: corrected[name] for name in contrasts}
