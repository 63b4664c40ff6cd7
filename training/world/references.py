"""Pictures after a reference, from which the sticker world's FLUX learns to read one, as FLUX.2 klein 9B-KV has.

In half of the batches both show the same scene, but for a change or two, and words say the picture or the change alone; in the others
the picture has things of the reference elsewhere, and words say where. They never give an order: what differs has to be found by name.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..data.sample import Thing as MarkedThing
from ..data.tasks.ground import COLOURS, find_visible_colours, outline_boxes, paint
from ..from_scratch.world import Referenced
from ..toy.scene import pick
from .drawings import TEXT_DROP, draw_any_scene, list_pool
from .edits import Words, draw_edit, draw_new_name
from .render import find_visible_masks, render
from .scene import ONE_A_PLACE, SIZES, Scene, are_apart, draw_ground_of_scene, draw_names, place_thing, show_things
from .stickers import list_hues
from .tasks import are_visible, draw_ground_scene, make_subject_question
from .words import GROUND_WORDS, describe_scene, list_references, say_where

SUBJECT_SHARE, SEVERAL_SHARE = 0.5, 0.5
"""Share of batches in which the reference shows things that the picture has elsewhere, and of their pictures the share with several:
what carries one carries the others, so that each picture teaches it more than once."""
MARKED_SHARE = 0.25
"""Share of the other pictures in which a thing is painted over or framed, and of which the words say no more."""
CHANGE_WORDS_SHARE = 0.75
"""Share of the others whose words say a change alone."""
TWICE_SHARE = 0.4
"""Share of the rest that differs by two changes."""
ELSEWHERE_UNNAMED_SHARE = 0.8
"""Where several things are elsewhere, the share that only the reference can show."""
MAX_ELSEWHERE = 3
"""Things of which words say where they are now: two facts each, of a text's eight (text.py)."""
KEPT = (0.0, 0.3, 1.0)
"""How much of sizes and places the words say."""
CHANGE_WORDS: Words = {
    "replace": ("{new} for {thing}",),
    "recolour": ("{thing}, now {hue}",),
    "add": ("{new} {side} {thing}",),
}
"""Words for a change, by kind of edit. "remove" and "ground" have none: such a change is seen without."""
CHANGE_KIND_SHARES = {"replace": 0.25, "recolour": 0.25, "add": 0.5}
"""Shares of these kinds; a place beside another thing is the hardest to find."""


def draw_referenced(rng: np.random.Generator, count: int) -> Referenced:
    """Draws so many of one kind."""
    about_subjects = rng.random() < SUBJECT_SHARE
    draw = draw_after_subject if about_subjects else draw_after
    references, pictures, texts = zip(*(draw(rng) for _ in range(count)))
    words = ["" if rng.random() < TEXT_DROP else text for text in texts]
    return Referenced("subject" if about_subjects else "edit", np.stack(references), np.stack(pictures), words)


def draw_after(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, str]:
    """Draws a reference, the picture after it and its words."""
    if rng.random() < MARKED_SHARE:
        scene = draw_ground_scene(rng, list_pool())
        picture, words = draw_mark(rng, scene)
        return render(scene), picture, words
    if rng.random() < CHANGE_WORDS_SHARE:
        kind = str(rng.choice(list(CHANGE_KIND_SHARES), p=list(CHANGE_KIND_SHARES.values())))
        before, edit = draw_edit(rng, list_pool(), kind, CHANGE_WORDS)
        return render(before), render(edit.after), edit.prompt
    scene = draw_any_scene(rng)
    before = change_scene(rng, scene)
    before = change_scene(rng, before) if rng.random() < TWICE_SHARE else before
    return render(before), render(scene), describe_scene(rng, scene, pick(rng, KEPT), share=1.0)


def draw_after_subject(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, str]:
    """Draws one thing of a reference elsewhere, or several."""
    if rng.random() < SEVERAL_SHARE:
        reference, scene, words = draw_elsewhere(rng)
        return render(reference), render(scene), words
    example = make_subject_question(rng, "", list_pool()).example
    return example.source, example.target, example.prompt


def draw_elsewhere(rng: np.random.Generator) -> tuple[Scene, Scene, str]:
    """Draws two to four things in corners, up to three of them elsewhere, and the words that say where these are now."""
    count = int(rng.integers(2, 5))
    names, others = draw_names(rng, count, list_pool()), draw_names(rng, count)
    names = [
        name if rng.random() < ELSEWHERE_UNNAMED_SHARE else other for name, other in zip(names, others, strict=True)
    ]
    reference, scene, words = show_things(rng, names), draw_ground_of_scene(rng), []
    for i in rng.permutation(count)[:MAX_ELSEWHERE]:
        thing = reference.things[i]
        moved = place_thing(rng, scene, thing.sticker, sizes=(thing.size,), centres=ONE_A_PLACE)
        if moved is not None:
            scene = replace(scene, things=(*scene.things, replace(moved, hue="")))
            words.append(f"{pick(rng, list_references(reference.things, i))}, now {say_where(moved)}")
    return reference, scene, ", ".join([*words, GROUND_WORDS[scene.ground]])


def change_scene(rng: np.random.Generator, scene: Scene) -> Scene:
    """Makes a change that is possible."""
    while True:
        changed = CHANGES[pick(rng, tuple(CHANGES))](rng, scene)
        if changed is not None:
            return changed


def _recolour(rng: np.random.Generator, scene: Scene) -> Scene | None:
    able = [i for i, thing in enumerate(scene.things) if list_hues(thing.sticker)]
    if not able:
        return None
    index = pick(rng, able)
    thing = scene.things[index]
    return scene.change_thing(
        index, hue=pick(rng, [hue for hue in ("", *list_hues(thing.sticker)) if hue != thing.hue])
    )


def _resize(rng: np.random.Generator, scene: Scene) -> Scene | None:
    if not scene.things:
        return None
    index = int(rng.integers(len(scene.things)))
    thing = scene.things[index]
    other = replace(thing, size=pick(rng, [size for size in SIZES if size != thing.size]))
    rest = scene.remove_thing(index).things
    return scene.change_thing(index, size=other.size) if all(are_apart(other, thing) for thing in rest) else None


def _swap(rng: np.random.Generator, scene: Scene) -> Scene | None:
    """Puts something else where a thing is."""
    if not scene.things:
        return None
    return scene.change_thing(int(rng.integers(len(scene.things))), sticker=draw_new_name(rng, scene), hue="")


def _take_one(rng: np.random.Generator, scene: Scene) -> Scene | None:
    return scene.remove_thing(int(rng.integers(len(scene.things)))) if scene.things else None


def _bring_one(rng: np.random.Generator, scene: Scene) -> Scene | None:
    thing = place_thing(rng, scene, draw_new_name(rng, scene))
    return None if thing is None else replace(scene, things=(*scene.things, thing))


def _change_ground(rng: np.random.Generator, scene: Scene) -> Scene:
    return replace(draw_ground_of_scene(rng), things=scene.things)


CHANGES: dict[str, Callable[[np.random.Generator, Scene], Scene | None]] = {
    "recolour": _recolour,
    "resize": _resize,
    "swap": _swap,
    "take": _take_one,
    "bring": _bring_one,
    "ground": _change_ground,
}


def draw_mark(rng: np.random.Generator, scene: Scene) -> tuple[np.ndarray, str]:
    """Paints a named thing over or frames it, and gives the words for it; without one it is the scene, and no words."""
    choices = {
        i: some
        for i, seen in enumerate(are_visible(scene))
        if seen and scene.things[i].is_named and (some := list_references(scene.things, i))
    }
    if not choices:
        return render(scene), ""
    index, framed = pick(rng, tuple(choices)), rng.random() < 0.5
    reference, picture, mask = pick(rng, choices[index]), render(scene), find_visible_masks(scene)[index]
    area = outline_boxes([MarkedThing(reference, "", mask)], mask.shape) if framed else mask
    colour = pick(rng, find_visible_colours(picture[area], COLOURS))
    picture = paint(picture, area, COLOURS[colour], 1.0)
    return picture, f"a {colour} box around {reference}" if framed else f"{reference} in {colour}"
