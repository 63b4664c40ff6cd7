"""What the sticker world's models are trained on: pictures with captions, and diptychs."""

from dataclasses import replace

import numpy as np

from ..data.tasks.canny import canny
from ..data.tasks.inpaint import GREY
from ..toy.scene import pick
from .edits import draw_edit
from .grounds import GROUNDS, SIDE
from .render import draw_depth_map, draw_seg_map, render
from .scene import Scene, draw_ground_of_scene, draw_names, draw_scene, fill_scene, place_thing
from .stickers import list_stickers
from .tasks import UNNAMED_SHARE, make_ground_question, make_subject_question
from .text import KEPT_SHARES
from .words import describe_scene

TEXT_DROP = 0.1
MARKED_SHARE, EDITED_SHARE = 0.15, 0.15
"""Share of pictures with an answer drawn on them, which must be as familiar as things are, and of pictures after an edit,
with the words that asked for it."""
CAPTIONED_SHARE = 0.6
"""Of these, the share whose words say the scene, too."""
PAIR_SHARE, SAME_PLACE = 0.6, 0.5
"""Share of diptychs with one thing on the right, and of these with it at the same place on both sides, which is the easier
thing to learn and leads to the others."""
CROWDED_SHARE, CROWD, CROWD_DISTANCE = 0.6, (4, 6), 0.32
"""Share of the decoder's pictures with many things, their named and unnamed ones, and how near these may stand (scene.py, MIN_DISTANCE)."""


def list_pool() -> tuple[str, ...]:
    return list_stickers()["pool"]


def draw_any_scene(rng: np.random.Generator) -> Scene:
    return draw_scene(rng, unnamed=list_pool(), share=UNNAMED_SHARE)


def draw_captioned(rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[str]]:
    pictures, texts = zip(*(draw_one(rng) for _ in range(count)))
    return np.stack(pictures), ["" if rng.random() < TEXT_DROP else text for text in texts]


def draw_one(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Draws a scene and its caption, or what an instruction leads to."""
    kind = rng.random()
    if kind < MARKED_SHARE:
        question = make_ground_question(rng, "", list_pool())
        return question.example.target, add_caption(rng, question.example.prompt, question.scene)
    if kind < MARKED_SHARE + EDITED_SHARE:
        _, edit = draw_edit(rng, list_pool())
        return render(edit.after), add_caption(rng, edit.prompt, edit.after)
    scene = draw_any_scene(rng)
    return render(scene), describe_scene(rng, scene, pick(rng, KEPT_SHARES))


def add_caption(rng: np.random.Generator, prompt: str, scene: Scene) -> str:
    if rng.random() >= CAPTIONED_SHARE:
        return prompt
    return f"{describe_scene(rng, scene, pick(rng, KEPT_SHARES))}. {prompt}".removeprefix(". ")


def draw_diptychs(rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[str]]:
    """Draws pairs of pictures side by side, of which the right one shows what a thing of the left one is like."""
    pictures, texts = zip(*(draw_pair(rng) if rng.random() < PAIR_SHARE else draw_subject(rng) for _ in range(count)))
    return np.stack(pictures), list(texts)


def draw_pair(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Draws a scene with an unnamed thing, and this thing alone."""
    subject = pick(rng, list_pool())
    left = fill_scene(rng, draw_ground_of_scene(rng), [subject, *draw_names(rng, int(rng.integers(0, 3)))])
    ground = draw_ground_of_scene(rng, [kind for kind in GROUNDS if kind != left.ground])
    moved = left.things[0] if rng.random() < SAME_PLACE else place_thing(rng, ground, subject)
    right = replace(ground, things=(moved or left.things[0],))
    return np.concatenate((render(left), render(right)), axis=1), describe_scene(rng, left, keep=1.0, share=1.0)


def draw_subject(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Draws one of several unnamed things elsewhere; the words say which."""
    example = make_subject_question(rng, "", list_pool()).example
    return np.concatenate((example.target, example.source), axis=1), example.prompt


def draw_scenes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draws what the decoder learns from: grounds are easy, things are not, and evaluation shows it new ones."""
    return np.stack([draw_crowd(rng) if rng.random() < CROWDED_SHARE else draw_one(rng)[0] for _ in range(count)])


def draw_crowd(rng: np.random.Generator) -> np.ndarray:
    named, unnamed = CROWD
    names = rng.permutation([*draw_names(rng, named), *draw_names(rng, unnamed, list_pool())])
    return render(fill_scene(rng, draw_ground_of_scene(rng), names.tolist(), CROWD_DISTANCE))


def draw_typical(rng: np.random.Generator, count: int = 1500) -> np.ndarray:
    """Draws what the VAE must be able to say: scenes, now and then a control map or a hole."""
    pictures = []
    for i in range(count):
        scene = draw_any_scene(rng)
        picture = render(scene) if i % 4 else draw_one(rng)[0]
        pictures.append(picture)
        if i % 16 == 0:
            pictures += [draw_depth_map(scene), draw_seg_map(scene), canny(picture)]
        if i % 16 == 1:
            y, x = rng.integers(0, SIDE // 2, 2)
            pictures.append(picture.copy())
            pictures[-1][y : y + SIDE // 2, x : x + SIDE // 2] = GREY
    return np.stack(pictures)
