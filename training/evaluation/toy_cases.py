"""A benchmark's questions asked to the toy world, whose right answers are known: to try all of it with nothing at hand."""

from itertools import count, islice

import numpy as np

from ..toy.evaluate import APART
from ..toy.tasks import ASK
from .case import Case

MEASURES = ("l1", "rmse", "ssim")
"""To the right answer; they need no network."""
SIDE = 64
FEW = 16
"""Cases, if not said otherwise."""


def toy_cases(task: str, kind: str, cases: int, seed: int) -> list[Case]:
    rng = np.random.default_rng((APART + seed, list(ASK).index(task)))
    asked = (ASK[task](rng, f"{task}-{seed}-{i}").example for i in count())
    fitting = (example for example in asked if kind in ("", example.kind))
    return [
        Case(one.id, one.source, one.prompt, one.target, {"photos": (one.source, one.target), "group": one.kind})
        for one in islice(fitting, cases)
    ]
