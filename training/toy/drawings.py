"""What the toy world's models are trained on: pictures with captions, and diptychs."""

from dataclasses import replace

import numpy as np

from ..data.tasks.canny import canny
from ..data.tasks.inpaint import GREY
from .render import draw_depth_map, draw_seg_map, render
from .scene import GROUNDS, PLACES, Scene, add_mark, draw_item, draw_scene, pick
from .words import Fact, describe_facts, draw_facts, make_fact

TEXT_DROP = 0.1
LOOKS_OPEN, SAME_PLACE = 0.9, 0.5
"""Share of diptychs whose words leave looks open, and whose thing is at the same place on both sides, which is the easier
thing to learn and leads to the other."""
MARKED_SHARE = 0.5
"""Share of pictures with a box or a painted thing: drawn answers must be as familiar as things are."""
KEPT_SHARES = (0.5, 0.9, 1.0)
"""How much of the truth captions tell: always all of it would leave nothing to imagine."""


def draw_captioned(rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[str]]:
    """Draws scenes: pictures uint8 (count, SIDE, SIDE, 3) and their captions."""
    scenes = [add_mark(rng, draw_scene(rng), MARKED_SHARE) for _ in range(count)]
    return np.stack([render(scene) for scene in scenes]), [caption_scene(rng, scene) for scene in scenes]


def caption_scene(rng: np.random.Generator, scene: Scene) -> str:
    return "" if rng.random() < TEXT_DROP else describe_facts(rng, draw_facts(rng, scene, rng.choice(KEPT_SHARES)))


def draw_diptychs(rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[str]]:
    """Draws pairs of pictures side by side: what words leave open of the left one's first thing, the right one shows."""
    pictures, texts = [], []
    for _ in range(count):
        left = draw_scene(rng)
        thing = left.items[0]
        place = thing.place if rng.random() < SAME_PLACE else pick(rng, PLACES)
        right = Scene(
            pick(rng, GROUNDS),
            (replace(draw_item(rng, place), shape=thing.shape, colour=thing.colour, texture=thing.texture),),
        )
        pictures.append(np.concatenate((render(left), render(right)), axis=1))
        facts = [make_fact(item) for item in left.items]
        facts[0] = replace(facts[0], colour="", texture="") if rng.random() < LOOKS_OPEN else facts[0]
        texts.append(describe_facts(rng, [*facts, Fact("ground", colour=left.ground)]))
    return np.stack(pictures), texts


def draw_scenes(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.stack([render(add_mark(rng, draw_scene(rng), 0.3)) for _ in range(count)])


def draw_typical(rng: np.random.Generator, count: int = 3000) -> np.ndarray:
    """Draws what the VAE must be able to say: scenes, now and then a control map or a hole."""
    pictures = []
    for i in range(count):
        scene = add_mark(rng, draw_scene(rng), 0.4)
        picture = render(scene)
        pictures.append(picture)
        if i % 8 == 0:
            pictures += [draw_depth_map(scene), draw_seg_map(scene), canny(picture)]
        if i % 8 == 1:
            y, x = rng.integers(0, 40, 2)
            pictures.append(picture.copy())
            pictures[-1][y : y + 24, x : x + 24] = GREY
    return np.stack(pictures)
