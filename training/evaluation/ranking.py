"""Several pictures of one wish, from best to worst: by the mean of their places in each measure."""

from collections.abc import Sequence

import numpy as np

from .measure import Score
from .metrics import METRICS


def mean_places(scores: Sequence[Score], keys: Sequence[str]) -> np.ndarray:
    """Of the pictures that these keys name: 1 is best everywhere; equals share their places."""
    return np.mean([places(score, keys) for score in scores], axis=0)


def places(score: Score, keys: Sequence[str]) -> np.ndarray:
    values = np.array([score.values[key] for key in keys]) * (-1 if METRICS[score.metric].rises else 1)
    others = values[:, None]
    return (values < others).sum(1) + ((values == others).sum(1) + 1) / 2
