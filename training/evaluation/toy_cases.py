"""A benchmark's cases from the toy world, whose right answers are known: all of an evaluation runs without any data."""

from itertools import count, islice
from typing import Any

import numpy as np

from ..data.box import find_box
from ..from_scratch.evaluate import HELD_OUT_SEED
from ..toy.render import draw_frame, draw_item_mask
from ..toy.scene import MARKERS
from ..toy.tasks import QUESTION_MAKERS, Question
from .case import Case
from .set_benchmarks import AskedBox

TOY_METRICS = ("l1", "rmse", "ssim")
"""Rows of METRICS that compare with the right answer and need no network."""
TOY_SIDE = 64
DEFAULT_COUNT = 16
"""Cases, unless a number is given."""


def make_toy_cases(task: str, kind: str, cases: int, seed: int) -> list[Case]:
    """Makes the first `cases` questions of a task, of one kind of map or of all (""); a seed draws others."""
    rng = np.random.default_rng((HELD_OUT_SEED + seed, list(QUESTION_MAKERS).index(task)))
    questions = (QUESTION_MAKERS[task](rng, f"{task}-{seed}-{i}") for i in count())
    matching = (question for question in questions if kind in ("", question.example.kind))
    return [_make_case(question) for question in islice(matching, cases)]


def _make_case(question: Question) -> Case:
    it = question.example
    extra: dict[str, Any] = {"photos": (it.source, it.target), "group": it.kind}
    if it.task == "inpaint":
        extra["mask"] = (it.source != it.target).any(-1)
    if it.kind == "box":
        mark = question.scene.marks[0]
        frame = draw_frame(draw_item_mask(question.scene.items[mark.item]))
        extra["asked"] = AskedBox(find_box(frame), mark.colour, MARKERS)
    return Case(it.id, it.source, it.prompt, it.target, extra)
