"""Edits by name, without a place: at least two things could be meant, so that the right one has to be found."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..toy.scene import pick
from .grounds import GROUNDS
from .scene import CENTRES, SIZES, Scene, Thing, are_apart, draw_ground_of_scene, draw_names, fill_scene
from .stickers import COLOURED, NAMED, list_hues
from .words import GROUND_WORDS, add_article, list_references

SIDES = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
"""Steps across and down."""
Words = Mapping[str, Sequence[str]]
WORDS: Words = {
    "replace": ("replace {thing} with {new}", "turn {thing} into {new}", "swap {thing} for {new}"),
    "remove": ("remove {thing}", "erase {thing}", "take {thing} away"),
    "recolour": ("make {thing} {hue}", "paint {thing} {hue}", "turn {thing} {hue}"),
    "add": ("put {new} {side} {thing}", "add {new} {side} {thing}", "draw {new} {side} {thing}"),
    "ground": ("make it {ground}", "change the background: {ground}", "show the same {ground}"),
}


@dataclass(frozen=True)
class Edit:
    kind: str
    prompt: str
    after: Scene
    item: int | None
    """The number of the changed thing: afterwards, or before if it was removed; None: the ground changed."""


def draw_edit(
    rng: np.random.Generator, unnamed: tuple[str, ...], kind: str = "", words: Words = WORDS
) -> tuple[Scene, Edit]:
    """Draws a scene and an edit that is possible in it, in one of its kind's words (or "make it night")."""
    kind = kind or pick(rng, words)
    while True:
        before = _draw_before(rng, kind, unnamed)
        edit = EDITS[kind](rng, before, words[kind]) if sum(thing.is_named for thing in before.things) >= 2 else None
        if edit is not None:
            return before, edit


def _draw_before(rng: np.random.Generator, kind: str, unnamed: tuple[str, ...]) -> Scene:
    """Draws two to four things; what shall be recoloured has a rival that could be."""
    names = draw_names(rng, int(rng.integers(2, 5)))
    if kind == "recolour":
        names[:2] = draw_names(rng, 2, list(COLOURED))
    elif len(names) > 2 and rng.random() < 0.2:
        names[-1] = pick(rng, unnamed)
    return fill_scene(rng, draw_ground_of_scene(rng), list(dict.fromkeys(names)), 0.55)


def refer(rng: np.random.Generator, scene: Scene, index: int) -> str:
    """Names a thing by what it is called, now and then by its class."""
    references = list_references(scene.things, index)
    return references[0] if rng.random() < 0.7 else pick(rng, references)


def pick_named(rng: np.random.Generator, scene: Scene) -> int:
    return pick(rng, [i for i, thing in enumerate(scene.things) if thing.is_named])


def draw_new_name(rng: np.random.Generator, scene: Scene) -> str:
    taken = {thing.sticker for thing in scene.things}
    return pick(rng, [name for name in NAMED if name not in taken])


def replace_one(rng: np.random.Generator, before: Scene, words: Sequence[str]) -> Edit:
    index, new = pick_named(rng, before), draw_new_name(rng, before)
    prompt = pick(rng, words).format(thing=refer(rng, before, index), new=add_article(new))
    return Edit("replace", prompt, before.change_thing(index, sticker=new, hue=""), index)


def remove_one(rng: np.random.Generator, before: Scene, words: Sequence[str]) -> Edit:
    index = pick_named(rng, before)
    prompt = pick(rng, words).format(thing=refer(rng, before, index))
    return Edit("remove", prompt, before.remove_thing(index), index)


def recolour_one(rng: np.random.Generator, before: Scene, words: Sequence[str]) -> Edit | None:
    """Gives a colour that the thing does not have; another thing could have it, too."""
    able = [i for i, thing in enumerate(before.things) if list_hues(thing.sticker)]
    if len(able) < 2:
        return None
    index = pick(rng, able)
    thing = before.things[index]
    hue = pick(rng, [hue for hue in list_hues(thing.sticker) if hue != thing.hue])
    prompt = pick(rng, words).format(thing=refer(rng, before, index), hue=hue)
    return Edit("recolour", prompt, before.change_thing(index, hue=hue), index)


def add_one(rng: np.random.Generator, before: Scene, words: Sequence[str]) -> Edit | None:
    """Puts a thing right beside another, where there is room."""
    index, new = pick_named(rng, before), draw_new_name(rng, before)
    beside = before.things[index]
    options = [(side, thing) for side in SIDES for thing in _list_beside(beside, side, new)]
    free = [(side, thing) for side, thing in options if all(are_apart(thing, other) for other in before.things)]
    if not free:
        return None
    side, thing = pick(rng, free)
    called = add_article(thing.sticker if thing.size == "normal" else f"{thing.size} {thing.sticker}")
    prompt = pick(rng, words).format(new=called, side=side, thing=refer(rng, before, index))
    after = replace(before, things=(*before.things, thing))
    return Edit("add", prompt, after, len(after.things) - 1)


def _list_beside(beside: Thing, side: str, new: str) -> list[Thing]:
    """Lists what has room on one side of another thing, in each size: in its row or column, for no words could say more."""
    (across, down), things = SIDES[side], []
    for size, pixels in SIZES.items():
        apart = (pixels + SIZES[beside.size]) // 2
        x, y = _find_centre(beside.x, across, apart), _find_centre(beside.y, down, apart)
        things += [] if x is None or y is None else [Thing(new, x, y, size)]
    return things


def _find_centre(centre: int, way: int, apart: int) -> int | None:
    """Finds the nearest centre up (1) or down (-1) from another, at least so many pixels away; 0 stays there."""
    if not way:
        return centre
    return next((other for other in CENTRES[::way] if way * (other - centre) >= apart), None)


def change_ground(rng: np.random.Generator, before: Scene, words: Sequence[str]) -> Edit:
    """Keeps things and horizon."""
    ground = pick(rng, [kind for kind in GROUNDS if kind != before.ground])
    prompt = pick(rng, words).format(ground=GROUND_WORDS[ground])
    if ground == "night" and rng.random() < 0.7:
        prompt = "make it night"
    return Edit("ground", prompt, replace(before, ground=ground), None)


EDITS: dict[str, Callable[[np.random.Generator, Scene, Sequence[str]], Edit | None]] = {
    "replace": replace_one,
    "remove": remove_one,
    "recolour": recolour_one,
    "add": add_one,
    "ground": change_ground,
}
assert set(EDITS) == set(WORDS)
