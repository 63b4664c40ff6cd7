"""A subject that the toy world has no words for: a disc that is one colour on its left and another on its right.

Its few photos have much in common that is not the subject: it is always on the left, and never on white or black.
Questions ask for it elsewhere. Fidelity: how much of its look is there. Editability: whether the place, the ground and
what else there is are as told.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .oracle import REACH, read_ground, read_scene
from .render import blend, coverage, item_centre, render
from .scene import COLOURS, CORNER, GROUNDS, PLACES, SHAPES, SIZES, Item, Scene, draw_item, draw_scene, pick
from .score import has_item
from .words import describe_facts, make_fact

NOUN, LEFT, RIGHT = "circle", "red", "blue"
SIZE = "big"
PHOTO_SCENES = (
    ("top left", "sand", None),
    ("bottom left", "sand", "green"),
    ("top left", "sky", "yellow"),
    ("bottom left", "sky", None),
)
"""Of each photo: where it is, on what, and the colour of what else there is."""
QUESTION_GROUNDS = ("white", "black")
SECOND_THING_SHARE = 0.5
"""Share of questions with a second thing."""


class SubjectQuestion(NamedTuple):
    """The subject at a place of a scene that holds all the rest."""

    place: str
    scene: Scene

    @property
    def prompt(self) -> str:
        """With the subject's noun marked."""
        others = "".join(f", a {item.colour} {item.shape} at the {item.place}" for item in self.scene.items)
        return f"a [{NOUN}] at the {self.place}{others}, on a {self.scene.ground} ground"


def draw_subject(place: str, scene: Scene, down: int = 0, right: int = 0, size: str = SIZE) -> np.ndarray:
    """uint8 (SIDE, SIDE, 3)."""
    picture = render(scene).astype(float)
    y, x = item_centre(Item(NOUN, LEFT, "plain", size, place, down, right))
    cover = coverage(NOUN, SIZES[size], y, x, len(picture))
    return np.rint(blend(picture, cover, two_halves(len(picture), x))).astype(np.uint8)


def two_halves(side: int, x: float) -> np.ndarray:
    """The look: (side, side, 3)."""
    across = (np.arange(side) + 0.5 < x)[None, :, None]
    row = np.where(across, np.array(COLOURS[LEFT], float), np.array(COLOURS[RIGHT], float))
    return np.broadcast_to(row, (side, side, 3))


def draw_photos(seed: int = 0) -> dict[str, np.ndarray]:
    rng, found = np.random.default_rng((seed, 17)), {}
    for i, (place, ground, other) in enumerate(PHOTO_SCENES):
        items = (draw_item(rng, "bottom right", other),) if other else ()
        down, right = (int(shift) for shift in rng.integers(-2, 3, 2))
        found[f"photo {i + 1}"] = draw_subject(place, Scene(ground, items), down, right)
    return found


def draw_prior(count: int, seed: int = 0) -> dict[str, tuple[np.ndarray, str]]:
    """Pictures of the class, told in full."""
    rng, found = np.random.default_rng((seed, 18)), {}
    while len(found) < count:
        scene = draw_scene(rng)
        scene = scene.change_item(0, shape=NOUN)
        facts = [make_fact(item) for item in scene.items]
        found[f"class {len(found) + 1}"] = render(scene), describe_facts(rng, facts)
    return found


def make_questions(count: int, seed: int) -> list[SubjectQuestion]:
    rng, found = np.random.default_rng((seed, 19)), []
    free = [colour for colour in COLOURS if colour not in (LEFT, RIGHT)]
    for _ in range(count):
        here, there = (list(PLACES)[i] for i in rng.permutation(len(PLACES))[:2])
        shape, colour = pick(rng, [shape for shape in SHAPES if shape != NOUN]), pick(rng, free)
        items = (Item(shape, colour, "plain", "big", there),) if rng.random() < SECOND_THING_SHARE else ()
        found.append(SubjectQuestion(here, Scene(pick(rng, QUESTION_GROUNDS), items)))
    return found


def score_answer(question: SubjectQuestion, picture: np.ndarray) -> dict[str, float]:
    found = read_scene(picture).scene
    others = [item.place for item in question.scene.items]
    empty = all(found.at(place) is None for place in PLACES if place not in (question.place, *others))
    there = all(has_item(found, item, item.place, ("shape", "colour")) for item in question.scene.items)
    followed = [found.at(question.place) is not None, found.ground == question.scene.ground, empty and there]
    return {"fidelity": measure_likeness(picture), "editability": float(np.mean(followed))}


def measure_likeness(picture: np.ndarray) -> float:
    """The subject where it is most like itself: the share of its look that a true drawing explains, beyond what the best
    drawing of one colour would."""
    picture = picture.astype(float)
    ground = np.array(GROUNDS[read_ground(picture)], float)
    cover, looks = draw_forms()
    truth = (cover * (looks - ground)).reshape(len(cover), -1)
    share = cover**2 / (cover**2).sum((1, 2), keepdims=True)
    plain = (share * looks).sum((1, 2), keepdims=True)
    own, best = ((cover * (looks - plain)) ** 2).sum((1, 2, 3)), 0.0
    for row, column in PLACES.values():
        corner = picture[row * CORNER : (row + 1) * CORNER, column * CORNER : (column + 1) * CORNER]
        error = (((corner - ground).ravel() - truth) ** 2).sum(1)
        best = max(best, float((1 - error / own).max()))
    return best


@lru_cache(maxsize=1)
def draw_forms() -> tuple[np.ndarray, np.ndarray]:
    """Coverage (forms, CORNER, CORNER, 1) and colours of the subject in every size, at every offset."""
    offsets, middle = range(-REACH, REACH + 1), CORNER / 2
    places = [(radius, middle + y, middle + x) for radius in SIZES.values() for y in offsets for x in offsets]
    cover = [coverage(NOUN, radius, y, x, CORNER) for radius, y, x in places]
    return np.stack(cover)[..., None], np.stack([two_halves(CORNER, x) for _, _, x in places])


def mean_scores(questions: Sequence[SubjectQuestion], pictures: Sequence[np.ndarray]) -> dict[str, float]:
    scores = [score_answer(question, picture) for question, picture in zip(questions, pictures, strict=True)]
    return {name: float(np.mean([each[name] for each in scores])) for name in scores[0]}
