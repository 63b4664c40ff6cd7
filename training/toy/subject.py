"""A subject that the built-in world has no words for: a disc that is one colour on its left and another on its right.

Its few photos have much in common that is not the subject: it is always on the left, and never on white or black.
Questions ask for it elsewhere. Fidelity is how much of its look is there; editability, whether the place, the ground and
the other things are as the prompt says.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..from_scratch.world import OwnSubject
from .oracle import REACH, read_ground, read_scene
from .render import blend, draw_coverage, find_item_centre, render
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
"""Each photo's place, ground, and the colour of its other thing."""
QUESTION_GROUNDS = ("white", "black")
"""Which no photo has."""
SECOND_THING_SHARE = 0.5
"""Share of questions with a second thing."""


class SubjectQuestion(NamedTuple):
    """Asks for the subject at a place of a scene, which holds all the rest."""

    place: str
    scene: Scene

    @property
    def prompt(self) -> str:
        """Has the subject's noun in brackets."""
        others = "".join(f", a {item.colour} {item.shape} at the {item.place}" for item in self.scene.items)
        return f"a [{NOUN}] at the {self.place}{others}, on a {self.scene.ground} ground"

    @property
    def size(self) -> int:
        return len(self.scene.items)


def draw_subject(place: str, scene: Scene, down: int = 0, right: int = 0, size: str = SIZE) -> np.ndarray:
    """Draws the subject over a scene, uint8 (SIDE, SIDE, 3)."""
    picture = render(scene).astype(float)
    y, x = find_item_centre(Item(NOUN, LEFT, "plain", size, place, down, right))
    cover = draw_coverage(NOUN, SIZES[size], y, x, len(picture))
    return np.rint(blend(picture, cover, two_halves(len(picture), x))).astype(np.uint8)


def two_halves(side: int, x: float) -> np.ndarray:
    """Gives the subject's colours (side, side, 3), parted at column x."""
    across = (np.arange(side) + 0.5 < x)[None, :, None]
    row = np.where(across, np.array(COLOURS[LEFT], float), np.array(COLOURS[RIGHT], float))
    return np.broadcast_to(row, (side, side, 3))


def draw_photos(seed: int = 0) -> dict[str, np.ndarray]:
    """Draws the subject's photos, by name."""
    rng, photos = np.random.default_rng((seed, 17)), {}
    for i, (place, ground, other) in enumerate(PHOTO_SCENES):
        items = (draw_item(rng, "bottom right", other),) if other else ()
        down, right = (int(shift) for shift in rng.integers(-2, 3, 2))
        photos[f"photo {i + 1}"] = draw_subject(place, Scene(ground, items), down, right)
    return photos


def draw_prior(count: int, seed: int = 0) -> dict[str, tuple[np.ndarray, str]]:
    """Draws pictures of the class with prompts that describe all of them, by name."""
    rng, prior = np.random.default_rng((seed, 18)), {}
    while len(prior) < count:
        scene = draw_scene(rng)
        scene = scene.change_item(0, shape=NOUN)
        facts = [make_fact(item) for item in scene.items]
        prior[f"class {len(prior) + 1}"] = render(scene), describe_facts(rng, facts)
    return prior


def make_questions(count: int, seed: int) -> list[SubjectQuestion]:
    """Draws questions, half of them with a second thing."""
    rng, questions = np.random.default_rng((seed, 19)), []
    free = [colour for colour in COLOURS if colour not in (LEFT, RIGHT)]
    for _ in range(count):
        here, there = (list(PLACES)[i] for i in rng.permutation(len(PLACES))[:2])
        shape, colour = pick(rng, [shape for shape in SHAPES if shape != NOUN]), pick(rng, free)
        items = (Item(shape, colour, "plain", "big", there),) if rng.random() < SECOND_THING_SHARE else ()
        questions.append(SubjectQuestion(here, Scene(pick(rng, QUESTION_GROUNDS), items)))
    return questions


def score_answer(question: SubjectQuestion, picture: np.ndarray) -> dict[str, float]:
    """Gives fidelity and editability, 0 to 1."""
    read = read_scene(picture).scene
    others = [item.place for item in question.scene.items]
    empty = all(read.at(place) is None for place in PLACES if place not in (question.place, *others))
    there = all(has_item(read, item, item.place, ("shape", "colour")) for item in question.scene.items)
    followed = [read.at(question.place) is not None, read.ground == question.scene.ground, empty and there]
    return {"fidelity": measure_likeness(picture), "editability": float(np.mean(followed))}


def measure_likeness(picture: np.ndarray) -> float:
    """Looks for the subject where it is most like itself.

    Gives the share of its look, 0 to 1, that a true drawing explains beyond what the best drawing of one colour does.
    """
    picture = picture.astype(float)
    ground = np.array(GROUNDS[read_ground(picture)], float)
    cover, looks = draw_forms()
    truth = (cover * (looks - ground)).reshape(len(cover), -1)
    share = cover**2 / (cover**2).sum((1, 2), keepdims=True)
    plain = (share * looks).sum((1, 2), keepdims=True)
    norms, best = ((cover * (looks - plain)) ** 2).sum((1, 2, 3)), 0.0
    for row, column in PLACES.values():
        corner = picture[row * CORNER : (row + 1) * CORNER, column * CORNER : (column + 1) * CORNER]
        error = (((corner - ground).ravel() - truth) ** 2).sum(1)
        best = max(best, float((1 - error / norms).max()))
    return best


@lru_cache(maxsize=1)
def draw_forms() -> tuple[np.ndarray, np.ndarray]:
    """Draws the subject in every size, at every offset: coverage (forms, CORNER, CORNER, 1) and colours (..., 3)."""
    offsets, middle = range(-REACH, REACH + 1), CORNER / 2
    places = [(radius, middle + y, middle + x) for radius in SIZES.values() for y in offsets for x in offsets]
    cover = [draw_coverage(NOUN, radius, y, x, CORNER) for radius, y, x in places]
    return np.stack(cover)[..., None], np.stack([two_halves(CORNER, x) for _, _, x in places])


SUBJECT = OwnSubject(NOUN, draw_photos, draw_prior, make_questions, score_answer)
