"""A subject that the sticker world has no words for: a dog that looks unlike the one that "dog" names.

Its few photos have much in common that is not the subject: it is always on the left, and never in the snow or at night.
Questions ask for it elsewhere. Fidelity is whether it is told from all other things; editability, whether the place, the
ground and the other things, where it names some, are as the prompt says.
"""

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..from_scratch.world import OwnSubject
from ..toy.scene import pick
from .oracle import read_scene, read_subject
from .render import render
from .scene import PLACES, Scene, draw_ground_of_scene, draw_names, fill_scene, place_thing
from .score import is_in_place
from .stickers import CLASSES, NAMED, list_stickers
from .words import GROUND_WORDS, add_article, describe_scene, say_where

NOUN, STICKER = "dog", "dog2"
PHOTO_SCENES = (("left", "beach"), ("top left", "street"), ("bottom left", "room"), ("left", "meadow"))
"""Each photo's place and ground."""
QUESTION_GROUNDS = ("snow", "night")
"""Which no photo has."""
SECOND_THING_SHARE = 0.5
"""Share of photos and of questions with a second thing."""


class SubjectQuestion(NamedTuple):
    """Asks for the subject, the scene's first thing, with all the rest of the scene."""

    scene: Scene

    @property
    def prompt(self) -> str:
        """Has the subject's noun in brackets."""
        subject, *others = self.scene.things
        parts = [
            f"a [{NOUN}] {say_where(subject)}",
            *(f"{add_article(each.sticker)} {say_where(each)}" for each in others),
        ]
        return ", ".join([*parts, GROUND_WORDS[self.scene.ground]])

    @property
    def size(self) -> int:
        return len(self.scene.things)


def draw_subject_scene(rng: np.random.Generator, place: str, ground: str) -> Scene:
    """Draws the subject in a place of a ground, perhaps with a named thing that is no animal."""
    scene, subject = draw_ground_of_scene(rng, (ground,)), None
    while subject is None:
        subject = place_thing(rng, scene, STICKER, place)
    scene = replace(scene, things=(subject,))
    if rng.random() < SECOND_THING_SHARE:
        others = draw_names(rng, 1, [name for name, kind in NAMED.items() if kind != NAMED[NOUN]])
        scene = fill_scene(rng, scene, others)
    return replace(scene, things=tuple(replace(thing, hue="") for thing in scene.things))


def draw_photos(seed: int = 0) -> dict[str, np.ndarray]:
    """Draws the subject's photos, by name."""
    rng = np.random.default_rng((seed, 17))
    scenes = [draw_subject_scene(rng, place, ground) for place, ground in PHOTO_SCENES]
    return {f"photo {i}": render(scene) for i, scene in enumerate(scenes, 1)}


def draw_prior(count: int, seed: int = 0) -> dict[str, tuple[np.ndarray, str]]:
    """Draws pictures of the class with prompts that describe all of them, by name."""
    rng, prior = np.random.default_rng((seed, 18)), {}
    for i in range(1, count + 1):
        others = draw_names(rng, int(rng.integers(0, 3)), [name for name in NAMED if name != NOUN])
        scene = fill_scene(rng, draw_ground_of_scene(rng), [NOUN, *others])
        prior[f"class {i}"] = render(scene), describe_scene(rng, scene, 1.0, 1.0)
    return prior


def make_questions(count: int, seed: int) -> list[SubjectQuestion]:
    """Draws questions, some of them with a second thing."""
    rng = np.random.default_rng((seed, 19))
    return [
        SubjectQuestion(draw_subject_scene(rng, pick(rng, PLACES), pick(rng, QUESTION_GROUNDS))) for _ in range(count)
    ]


@lru_cache(maxsize=1)
def list_candidates() -> tuple[str, ...]:
    """Lists what the subject is told from: all animals that have names, and all things that training never shows."""
    return *CLASSES[NAMED[NOUN]], *list_stickers()["held out"]


def score_answer(question: SubjectQuestion, picture: np.ndarray) -> dict[str, float]:
    subject, *others = question.scene.things
    found = read_subject(picture, list_candidates())
    read = read_scene(picture, (*NAMED, STICKER))
    followed = [
        any(is_in_place(thing, subject.place) for name in (NOUN, STICKER) for thing in read.find(name)),
        read.scene.ground == question.scene.ground,
        *(any(is_in_place(thing, other.place) for thing in read.find(other.sticker)) for other in others),
    ]
    fidelity = found is not None and found.thing.sticker == STICKER
    return {"fidelity": float(fidelity), "editability": float(np.mean(followed))}


SUBJECT = OwnSubject(NOUN, draw_photos, draw_prior, make_questions, score_answer)
