"""The order in which training sees samples.

Nothing here remembers where it is: what iteration k sees follows from the seed and k alone, on any number of
ranks. That is what makes a resumed run equal to an uninterrupted one.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..recipes.curriculum import Stage


class SampleIndex(NamedTuple):
    """One sample of an iteration."""

    task: str
    index: int
    """Into the task's dataset."""
    seed: int
    """Everything random about the sample follows from it."""


def sample_indices(
    seed: int,
    number: int,
    iteration: int,
    stage: Stage,
    train_counts: Mapping[str, int],
    buckets: tuple[int, ...] = (),
) -> list[SampleIndex]:
    """Lists what an iteration of the `number`-th stage sees, over all ranks: its task's samples, each once an epoch.

    With replay some come from earlier tasks instead, of those that the stage names by their weights. `train_counts` are by
    task, `buckets` are how many samples of the stage's task have each size.
    """
    rng = np.random.default_rng((seed, number, iteration))
    seeds = rng.integers(2**62, size=stage.batch)
    is_replayed = rng.random(stage.batch) < stage.replay
    earlier = [task for task in train_counts if task != stage.task and task in (stage.replay_from or train_counts)]
    weights = np.array([stage.replay_from.get(task, 1.0) for task in earlier])
    indices = []
    for j in range(stage.batch):
        if is_replayed[j] and earlier:
            count, share = len(earlier), weights / weights.sum()
            # unweighted draws stay those of runs from before there were weights
            task = earlier[rng.choice(count, p=share) if stage.replay_from else rng.integers(count)]
            indices.append(SampleIndex(task, int(rng.integers(train_counts[task])), int(seeds[j])))
        else:
            epoch, place = divmod(iteration * stage.batch + j, train_counts[stage.task])
            order = _shuffle(seed, number, epoch, train_counts[stage.task], buckets, stage.batch)
            indices.append(SampleIndex(stage.task, int(order[place]), int(seeds[j])))
    return indices


@lru_cache(maxsize=4)
def _shuffle(seed: int, number: int, epoch: int, count: int, buckets: tuple[int, ...], batch: int) -> np.ndarray:
    """Shuffles a task's samples into an epoch's order."""
    rng = np.random.default_rng((seed, number, epoch, count))
    order = rng.permutation(count)
    return order if len(buckets) < 2 else group_by_bucket(rng, order, buckets, batch, -epoch * count % batch)


def group_by_bucket(
    rng: np.random.Generator, order: np.ndarray, buckets: tuple[int, ...], batch: int, first: int
) -> np.ndarray:
    """Reorders an epoch so that a batch is of one bucket, as far as they go; `first` still belong to the last epoch's batch.

    What is left of every bucket makes the mixed batches where two epochs meet.
    """
    bucket = np.searchsorted(np.cumsum(buckets), order, side="right")
    groups = [order[bucket == i] for i in range(len(buckets))]
    full = [group[i : i + batch] for group in groups for i in range(0, len(group) - batch + 1, batch)]
    rest = np.concatenate([group[len(group) // batch * batch :] for group in groups])
    full = [full[i] for i in rng.permutation(len(full))]
    while len(rest) < first and full:
        rest = np.concatenate([full.pop(), rest])
    return np.concatenate([rest[:first], *full, rest[first:]])
