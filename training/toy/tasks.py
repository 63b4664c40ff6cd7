"""The five tasks on the built-in world, as questions; score.py judges answers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from ...prw.files.validate import check_choice
from ..data.sample import Example, Pair, Sample, Thing, Triple
from ..data.tasks.control import make_control_example
from ..data.tasks.inpaint import make_inpaint_example
from ..data.tasks.pairs import make_edit_example, make_subject_example
from .render import draw_depth_map, draw_item_mask, draw_seg_map, render
from .scene import (
    COLOURS,
    GROUNDS,
    MARK_FORMS,
    MARKERS,
    PLACES,
    SHAPES,
    SIDE,
    TEXTURES,
    Mark,
    Scene,
    draw_item,
    draw_scene,
    list_free_places,
    pick,
)
from .words import Fact, describe_addition, describe_change, describe_fact, describe_facts, describe_thing, make_fact

Edit = Callable[[np.random.Generator, Scene], tuple[Scene, str, int | None]]
"""Gives the scene afterwards, the instruction, and the number of the item that changed."""


@dataclass(frozen=True, eq=False)
class Question:
    """An example, and what it takes to judge an answer."""

    example: Example
    scene: Scene
    """What the target shows."""
    item: int | None = None
    """Which of its items was asked for or changed."""


def make_sample(rng: np.random.Generator, scene: Scene, name: str, side: int = SIDE) -> Sample:
    """Annotates a scene's picture with its caption, things and control maps."""
    facts = [make_fact(item) for item in scene.items]
    things = tuple(
        Thing(describe_thing(rng, fact), item.shape, draw_item_mask(item, side))
        for fact, item in zip(facts, scene.items)
    )
    caption = describe_facts(rng, [*facts, Fact("ground", colour=scene.ground)])
    maps = {"depth": draw_depth_map(scene, side), "seg": draw_seg_map(scene, side)}
    return Sample(name, render(scene, side), caption, things, maps)


def make_inpaint_question(rng: np.random.Generator, name: str, side: int = SIDE) -> Question:
    scene = draw_scene(rng)
    sample = make_sample(rng, scene, name, side)
    example = make_inpaint_example(rng, sample)
    item = next((i for i, thing in enumerate(sample.things) if thing.name == example.prompt), None)
    return Question(example, scene, item)


def make_ground_question(rng: np.random.Generator, name: str, side: int = SIDE) -> Question:
    """Asks for a box round one thing, or for the thing painted over; the prompt names it by what sets it apart."""
    scene = draw_scene(rng)
    index = int(rng.integers(len(scene.items)))
    mark = Mark(pick(rng, MARK_FORMS), pick(rng, MARKERS), index)
    marked = replace(scene, marks=(mark,))
    prompt = describe_fact(rng, make_reference(rng, scene, index, mark))
    pictures = render(scene, side), render(marked, side)
    return Question(Example(name, "ground", prompt, *pictures, mark.form), marked, index)


def make_reference(rng: np.random.Generator, scene: Scene, index: int, mark: Mark) -> Fact:
    """Names an item: among several it is the place that says which; shape and colour come with it."""
    item = scene.items[index]
    place = item.place if len(scene.items) > 1 or rng.random() < 0.3 else ""
    return Fact(mark.form, item.shape if rng.random() < 0.8 else "", item.colour, place=place, marker=mark.colour)


def make_control_question(rng: np.random.Generator, name: str, side: int = SIDE) -> Question:
    """Asks for the scene of a control map: its words say colours, textures and corners, the map shapes, sizes and places."""
    scene = draw_scene(rng, int(rng.integers(2, 4)))
    facts = [replace(make_fact(item), shape="", size="") for item in scene.items]
    caption = describe_facts(rng, [*facts, Fact("ground", colour=scene.ground)])
    example = make_control_example(rng, replace(make_sample(rng, scene, name, side), caption=caption))
    return Question(example, scene)


def make_subject_question(rng: np.random.Generator, name: str, side: int = SIDE) -> Question:
    """Asks for the same thing elsewhere, on another ground; words say where, and what kind of thing, but not its looks."""
    here, there = (list(PLACES)[i] for i in rng.permutation(len(PLACES))[:2])
    ground, other = (list(GROUNDS)[i] for i in rng.permutation(len(GROUNDS))[:2])
    first = Scene(ground, (draw_item(rng, here),))
    moved = replace(draw_item(rng, there), shape=first.items[0].shape, colour=first.items[0].colour)
    second = Scene(other, (replace(moved, texture=first.items[0].texture, size=first.items[0].size),))
    captions = [
        describe_facts(
            rng, [Fact("thing", scene.items[0].shape, place=scene.items[0].place), Fact("ground", colour=scene.ground)]
        )
        for scene in (first, second)
    ]
    example = make_subject_example(rng, Pair(name, render(first, side), render(second, side), *captions))
    return Question(example, second if example.prompt == captions[1] else first, 0)


def make_edit_question(rng: np.random.Generator, name: str, side: int = SIDE) -> Question:
    """Asks for a change of one thing or of the ground."""
    before = draw_scene(rng)
    kind = pick(rng, EDITS)
    after, prompt, item = EDITS[kind](rng, before)
    example = make_edit_example(rng, Triple(name, render(before, side), render(after, side), prompt))
    return Question(replace(example, kind=kind), after, item)


def _make_change(detail: str, options: Iterable[str]) -> Edit:
    def change(rng: np.random.Generator, before: Scene) -> tuple[Scene, str, int]:
        index = int(rng.integers(len(before.items)))
        item = before.items[index]
        taken = {getattr(other, detail) for other in before.items} if detail == "colour" else {getattr(item, detail)}
        after = before.change_item(index, **{detail: pick(rng, [option for option in options if option not in taken])})
        fact = make_fact(after.items[index])
        known = {name: getattr(fact, name) for name in ("shape", detail)} | {"place": fact.place}
        if detail == "shape":
            known["colour"] = fact.colour
        return after, describe_change(rng, Fact("thing", **known), detail), index

    return change


def _add(rng: np.random.Generator, before: Scene) -> tuple[Scene, str, int]:
    before_colours = {item.colour for item in before.items}
    place = pick(rng, list_free_places(before))
    item = draw_item(rng, place, pick(rng, [colour for colour in COLOURS if colour not in before_colours]))
    after = replace(before, items=(*before.items, item))
    return after, describe_addition(rng, make_fact(item)), len(after.items) - 1


def _remove(rng: np.random.Generator, before: Scene) -> tuple[Scene, str, None]:
    index = int(rng.integers(len(before.items)))
    item = before.items[index]
    after = replace(before, items=before.items[:index] + before.items[index + 1 :])
    shape = item.shape if rng.random() < 0.7 else ""
    return after, describe_fact(rng, Fact("none", shape=shape, place=item.place)), None


def _reground(rng: np.random.Generator, before: Scene) -> tuple[Scene, str, None]:
    after = replace(before, ground=pick(rng, [ground for ground in GROUNDS if ground != before.ground]))
    return after, describe_change(rng, Fact("ground", colour=after.ground), "colour"), None


EDITS: dict[str, Edit] = {
    "colour": _make_change("colour", COLOURS),
    "texture": _make_change("texture", TEXTURES),
    "shape": _make_change("shape", SHAPES),
    "add": _add,
    "remove": _remove,
    "ground": _reground,
}
QUESTION_MAKERS: dict[str, Callable[..., Question]] = {
    "inpaint": make_inpaint_question,
    "ground": make_ground_question,
    "control": make_control_question,
    "subject": make_subject_question,
    "edit": make_edit_question,
}


def make_questions(task: str, count: int, seed: int, side: int = SIDE) -> list[Question]:
    check_choice("The built-in world's task", task, tuple(QUESTION_MAKERS))
    rng = np.random.default_rng((seed, list(QUESTION_MAKERS).index(task)))
    return [QUESTION_MAKERS[task](rng, f"{task}-{seed}-{i}", side) for i in range(count)]
