"""The toy world in larger pictures than its models were trained on: the same scenes, with more pixels.

What is drawn is made smaller before the oracle reads it.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from PIL import Image

from ..from_scratch.world import World
from .scene import SIDE
from .score import SCORERS
from .store import TOY
from .tasks import Question, make_questions

TOKEN, MAX_SIDE = 16, 256
"""Pixels of a token's side, and of the largest picture's."""


def enlarge(side: int) -> World:
    """Gives the toy world in pictures of another side."""
    if side % TOKEN or not SIDE <= side <= MAX_SIDE:
        raise ValueError(
            f"The pictures' side is {side}, expected a multiple of {TOKEN} from {SIDE} to {MAX_SIDE}: choose another."
        )
    ask = partial(make_questions, side=side)
    scorers = {task: partial(_score_small, scorer) for task, scorer in SCORERS.items()}
    return replace(TOY, side=side, ask=ask, ask_held_out=ask, scorers=scorers)


def _score_small(
    scorer: Callable[[Question, np.ndarray], dict[str, float]], question: Question, picture: np.ndarray
) -> dict[str, float]:
    return scorer(*shrink(question, picture))


def shrink(question: Question, picture: np.ndarray) -> tuple[Question, np.ndarray]:
    """Shrinks a question and its answer to the world's own size, which is what the oracle reads."""
    example = question.example
    small = replace(example, source=_resize(example.source), target=_resize(example.target))
    return replace(question, example=small), _resize(picture)


def _resize(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX))
