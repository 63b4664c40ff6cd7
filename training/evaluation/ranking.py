"""Ranks several pictures of one wish by the mean of their ranks in each metric."""

from collections.abc import Sequence

import numpy as np

from .measure import Score
from .metrics import METRICS


def average_ranks(scores: Sequence[Score], keys: Sequence[str]) -> np.ndarray:
    """Computes mean ranks of the pictures with these keys: 1 is best in every metric; equals share their ranks."""
    return np.mean([rank_pictures(score, keys) for score in scores], axis=0)


def rank_pictures(score: Score, keys: Sequence[str]) -> np.ndarray:
    values = np.array([score.values[key] for key in keys]) * (-1 if METRICS[score.metric].higher_is_better else 1)
    others = values[:, None]
    return (values < others).sum(1) + ((values == others).sum(1) + 1) / 2
