"""The five tasks on the world, as questions; score.py judges answers.

Training draws unnamed things from one pool, evaluation from another (`unseen`): no subject of an evaluation has been in
any training picture.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ...prw.files.validate import check_choice
from ..data import sample as data
from ..data.sample import Example, Sample
from ..data.tasks.control import MAP_DRAWERS, make_control_example
from ..data.tasks.ground import make_ground_example
from ..data.tasks.inpaint import make_inpaint_example
from ..toy.scene import pick
from .edits import draw_edit
from .grounds import GROUNDS
from .render import draw_depth_map, draw_seg_map, find_visible_masks, render
from .scene import (
    ONE_A_PLACE,
    PLACES,
    Scene,
    Thing,
    draw_ground_of_scene,
    draw_names,
    draw_scene,
    fill_scene,
    place_thing,
    show_things,
)
from .stickers import NAMED, list_stickers
from .words import GROUND_WORDS, describe_scene, describe_thing, list_references, say_where

CANDIDATES = 64
"""Unnamed things among which an answer's subject is looked for."""
UNNAMED_SHARE = 0.15
"""Of things in scenes whose task is not about unnamed ones."""
SILHOUETTES = ("depth", "seg")
"""Kinds of maps that show where things are, and nothing of what they look like: so words name all of them."""
DOUBLE_SHARE = 0.5
"""Share of grounding's scenes with two things of one name."""
MIN_VISIBLE = 0.6
"""Of a thing that is asked for, the share that is seen at least."""


@dataclass(frozen=True, eq=False)
class Question:
    """An example, and what it takes to judge an answer."""

    example: Example
    scene: Scene
    """What the target shows; in grounding, what the source shows."""
    item: int | None = None
    """Which of its things was asked for or changed."""
    before: Scene | None = None
    """What an edit's source shows."""
    candidates: tuple[str, ...] = ()
    """The subject among unnamed things that it could be taken for."""


QuestionMaker = Callable[[np.random.Generator, str, tuple[str, ...]], Question]
"""Makes a question of a random generator, an id, and the unnamed things that may be shown."""


def make_sample(rng: np.random.Generator, scene: Scene, name: str, names: dict[int, str]) -> Sample:
    """Annotates a scene's picture with its caption, maps and those things that have names here, by their numbers."""
    masks, by_class = find_visible_masks(scene), rng.random() < 0.5
    things = tuple(data.Thing(words, name_class(scene.things[i], by_class), masks[i]) for i, words in names.items())
    maps = {"depth": draw_depth_map(scene), "seg": draw_seg_map(scene)}
    return Sample(name, render(scene), describe_scene(rng, scene), things, maps)


def name_class(thing: Thing, by_class: bool) -> str:
    """Gives "animal", or "fox"; everything is an object, so that nobody is asked for one."""
    kind = NAMED[thing.sticker]
    return kind if by_class and kind != "object" else "" if by_class else thing.sticker


def make_inpaint_question(rng: np.random.Generator, name: str, unnamed: tuple[str, ...]) -> Question:
    """Asks for a thing by its name, or for the scene by its caption."""
    scene = draw_scene(rng, unnamed=unnamed, share=UNNAMED_SHARE)
    seen = [i for i, enough in enumerate(are_visible(scene)) if enough and scene.things[i].is_named]
    names = {i: describe_thing(rng, scene.things[i], 0.3) for i in seen}
    sample = make_sample(rng, scene, name, names)
    example = make_inpaint_example(rng, sample)
    item = None if example.kind == "random" else next((i for i in names if names[i] == example.prompt), None)
    return Question(example, scene, item)


def make_ground_question(rng: np.random.Generator, name: str, unnamed: tuple[str, ...]) -> Question:
    """Asks for one thing by words that fit no other, or for any one of a class."""
    while True:
        scene = draw_ground_scene(rng, unnamed)
        references = {i: list_references(scene.things, i) for i, seen in enumerate(are_visible(scene)) if seen}
        names = {i: pick(rng, some) for i, some in references.items() if some and scene.things[i].is_named}
        if names:
            break
    sample = make_sample(rng, scene, name, names)
    example = make_ground_example(rng, sample)
    words = pad_words(example.prompt)
    asked = [i for i in names if f" {names[i]} " in words] if example.kind != "instance" else []
    return Question(example, scene, max(asked, key=lambda i: len(names[i]), default=None))


def pad_words(prompt: str) -> str:
    """Puts spaces round each word of a prompt, in place of punctuation."""
    return f" {''.join(letter if letter.isalpha() else ' ' for letter in prompt)} "


def draw_ground_scene(rng: np.random.Generator, unnamed: tuple[str, ...]) -> Scene:
    """Draws two to four things, often two of one name or of one class."""
    names = draw_names(rng, int(rng.integers(2, 5)))
    if rng.random() < DOUBLE_SHARE:
        names[1] = names[0]
    if unnamed and rng.random() < UNNAMED_SHARE:
        names[-1] = pick(rng, unnamed)
    return fill_scene(rng, draw_ground_of_scene(rng), [names[i] for i in rng.permutation(len(names))])


def are_visible(scene: Scene) -> list[bool]:
    """Says of each thing whether enough of it is seen to ask for it."""
    alone = [find_visible_masks(replace(scene, things=(thing,)))[0].sum() for thing in scene.things]
    return [seen.sum() >= MIN_VISIBLE * whole for seen, whole in zip(find_visible_masks(scene), alone)]


def make_control_question(rng: np.random.Generator, name: str, unnamed: tuple[str, ...]) -> Question:
    """Asks for the scene of a control map: the map says where what is, its words say names, colours and the ground."""
    kind = pick(rng, tuple(MAP_DRAWERS))
    scene = draw_scene(rng, 2, unnamed=() if kind in SILHOUETTES else unnamed, share=UNNAMED_SHARE)
    sample = replace(make_sample(rng, scene, name, {}), caption=describe_scene(rng, scene, keep=0.3, share=1.0))
    return Question(make_control_example(rng, sample, (kind,)), scene)


def make_subject_question(rng: np.random.Generator, name: str, unnamed: tuple[str, ...]) -> Question:
    """Asks for one of one to three unnamed things elsewhere, as large as it is, on another ground, perhaps with a named thing beside it."""
    while True:
        count = int(rng.integers(1, 4))
        source = show_things(rng, draw_names(rng, count, unnamed))
        index = int(rng.integers(len(source.things)))
        subject = source.things[index]
        target = draw_ground_of_scene(rng, [kind for kind in GROUNDS if kind != source.ground])
        wanted = place_thing(
            rng, target, subject.sticker, pick(rng, PLACES), sizes=(subject.size,), centres=ONE_A_PLACE
        )
        if wanted is None:
            continue
        target = replace(target, things=(wanted,))
        if rng.random() < 0.4:
            target = fill_scene(rng, target, [pick(rng, NAMED)], 0.7)
        prompt = describe_subject(rng, target, pick(rng, list_references(source.things, index)))
        shown = [thing.sticker for thing in source.things]
        others = [other for other in draw_names(rng, CANDIDATES + 3, unnamed) if other not in shown]
        candidates = [*shown, *others][:CANDIDATES]
        example = Example(name, "subject", prompt, render(source), render(target))
        return Question(example, target, 0, source, tuple(candidates))


def describe_subject(rng: np.random.Generator, target: Scene, reference: str) -> str:
    """Gives "the left thing, now at the top right, on a beach, and a cat at the bottom left"."""
    wanted, *others = target.things
    beside = "".join(f", and {describe_thing(rng, thing, 1.0)}" for thing in others)
    return f"{reference}, now {say_where(wanted)}, {GROUND_WORDS[target.ground]}{beside}"


def make_edit_question(rng: np.random.Generator, name: str, unnamed: tuple[str, ...]) -> Question:
    """Asks for a change of one of several things by its name, or of the ground."""
    before, edit = draw_edit(rng, unnamed)
    example = Example(name, "edit", edit.prompt, render(before), render(edit.after), edit.kind)
    return Question(example, edit.after, edit.item, before)


QUESTION_MAKERS: dict[str, QuestionMaker] = {
    "inpaint": make_inpaint_question,
    "ground": make_ground_question,
    "control": make_control_question,
    "subject": make_subject_question,
    "edit": make_edit_question,
}


def make_questions(task: str, count: int, seed: int, unseen: bool = False) -> list[Question]:
    """Makes questions with unnamed things of training, or with those that training never shows."""
    check_choice("The world's task", task, tuple(QUESTION_MAKERS))
    rng = np.random.default_rng((seed, list(QUESTION_MAKERS).index(task), int(unseen)))
    unnamed = list_stickers()["held out" if unseen else "pool"]
    return [QUESTION_MAKERS[task](rng, f"{task}-{seed}-{i}", unnamed) for i in range(count)]
