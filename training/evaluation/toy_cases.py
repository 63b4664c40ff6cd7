"""A benchmark's cases from the toy world, whose right answers are known: all of an evaluation runs without any data."""

from itertools import count, islice

import numpy as np

from ..toy.evaluate import HELD_OUT_SEED
from ..toy.tasks import QUESTION_MAKERS
from .case import Case

TOY_METRICS = ("l1", "rmse", "ssim")
"""Rows of METRICS that compare with the right answer and need no network."""
TOY_SIDE = 64
DEFAULT_COUNT = 16
"""Cases, unless a number is given."""


def make_toy_cases(task: str, kind: str, cases: int, seed: int) -> list[Case]:
    """The first `cases` questions of a task, of one kind of map or of all (""); a seed draws others."""
    rng = np.random.default_rng((HELD_OUT_SEED + seed, list(QUESTION_MAKERS).index(task)))
    examples = (QUESTION_MAKERS[task](rng, f"{task}-{seed}-{i}").example for i in count())
    matching = (example for example in examples if kind in ("", example.kind))
    return [
        Case(it.id, it.source, it.prompt, it.target, {"photos": (it.source, it.target), "group": it.kind})
        for it in islice(matching, cases)
    ]
