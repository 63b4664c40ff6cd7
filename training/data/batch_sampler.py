"""The order in which training sees lessons.

Nothing here remembers where it is: what iteration k sees follows from the seed and k alone, on any number of
ranks. That is what makes a resumed run equal to an uninterrupted one.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..recipes.curriculum import Stage


class Slot(NamedTuple):
    """One sample of an iteration."""

    task: str
    index: int
    """Into the task's lessons."""
    seed: int
    """Of all that is random about it."""


def slots(
    seed: int, number: int, iteration: int, stage: Stage, taught: Mapping[str, int], buckets: tuple[int, ...] = ()
) -> list[Slot]:
    """What an iteration of the `number`-th stage sees, over all ranks: its task's lessons, each once an epoch.

    With replay some slots are filled from the earlier tasks instead. `buckets` are the task's.
    """
    rng = np.random.default_rng((seed, number, iteration))
    seeds = rng.integers(2**62, size=stage.batch)
    replayed = rng.random(stage.batch) < stage.replay
    earlier = [task for task in taught if task != stage.task]
    out = []
    for j in range(stage.batch):
        if replayed[j] and earlier:
            task = earlier[rng.integers(len(earlier))]
            out.append(Slot(task, int(rng.integers(taught[task])), int(seeds[j])))
        else:
            epoch, place = divmod(iteration * stage.batch + j, taught[stage.task])
            order = _order(seed, number, epoch, taught[stage.task], buckets, stage.batch)
            out.append(Slot(stage.task, int(order[place]), int(seeds[j])))
    return out


@lru_cache(maxsize=4)
def _order(seed: int, number: int, epoch: int, count: int, buckets: tuple[int, ...], batch: int) -> np.ndarray:
    rng = np.random.default_rng((seed, number, epoch, count))
    order = rng.permutation(count)
    return order if len(buckets) < 2 else in_buckets(rng, order, buckets, batch, -epoch * count % batch)


def in_buckets(
    rng: np.random.Generator, order: np.ndarray, buckets: tuple[int, ...], batch: int, first: int
) -> np.ndarray:
    """The same samples, but a batch is of one bucket, as far as they go; `first` still belong to the last epoch's batch.

    What is left of every bucket makes the mixed batches where two epochs meet.
    """
    bucket = np.searchsorted(np.cumsum(buckets), order, side="right")
    alike = [order[bucket == i] for i in range(len(buckets))]
    full = [some[i : i + batch] for some in alike for i in range(0, len(some) - batch + 1, batch)]
    rest = np.concatenate([some[len(some) // batch * batch :] for some in alike])
    full = [full[i] for i in rng.permutation(len(full))]
    while len(rest) < first and full:
        rest = np.concatenate([full.pop(), rest])
    return np.concatenate([rest[:first], *full, rest[first:]])
