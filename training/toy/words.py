"""What people say of the built-in world: captions and instructions with variety, and the facts they state.

Every sentence states facts about the picture that is wanted; what it leaves open is free. An instruction is no
exception: "make the circle at the top left blue" says that there is a blue circle at the top left.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from .scene import COLOURS, GROUNDS, MARKERS, PLACES, SHAPES, SIZES, TEXTURES, Item, Scene, pick

MAX_FACTS = 6
"""Facts that one text can state."""


@dataclass(frozen=True)
class Fact:
    """One thing that a text says of a picture; an empty field is left open."""

    kind: str = ""
    """"thing", "ground", "box" or "paint" (a marked thing), "none" (no such thing); empty: no fact at all."""
    shape: str = ""
    colour: str = ""
    texture: str = ""
    size: str = ""
    place: str = ""
    marker: str = ""


VALUES = {
    "kind": ("", "thing", "ground", "box", "paint", "none"),
    "shape": ("", *SHAPES),
    "colour": ("", *COLOURS, *GROUNDS),
    "texture": ("", *TEXTURES),
    "size": ("", *SIZES),
    "place": ("", *PLACES),
    "marker": ("", *MARKERS),
}
"""What each field of a Fact can be."""
assert list(VALUES) == [field.name for field in fields(Fact)]

AT = ("at the {}", "in the {} corner", "in the {}", "{}")
ARTICLES = ("a ", "one ", "the ", "")
GROUND = ("on a {} ground", "on a {} background", "on {}", "the background is {}", "{} background")
PHRASES = {
    "box": (
        "a {marker} box around the {thing}",
        "draw a {marker} box round the {thing}",
        "outline the {thing} in {marker}",
    ),
    "paint": ("the {thing} painted {marker}", "paint the {thing} {marker}", "cover the {thing} with {marker}"),
    "none": ("no {thing}", "without the {thing}", "remove the {thing}", "erase the {thing}", "take away the {thing}"),
}
EMPTY = ("nothing {}", "remove what is {}", "clear everything {}", "leave it empty {}")
CHANGES = {
    "colour": ("make the {thing} {value}", "turn the {thing} {value}", "paint it: the {thing} becomes {value}"),
    "texture": ("make the {thing} {value}", "give the {thing} a {value} surface"),
    "size": ("make the {thing} {value}", "let the {thing} be {value}"),
    "shape": ("turn the {thing} into a {value}", "replace the {thing} with a {value}", "make a {value} of the {thing}"),
}
"""Instructions: the wanted fact with one detail put as a change."""
ADD = ("add a {}", "put a {}", "place a {}")
REGROUND = ("make the background {}", "change the background to {}", "turn the ground {}")
JOINTS = (", ", " and ", ". ", "; ")


def make_fact(item: Item) -> Fact:
    return Fact("thing", item.shape, item.colour, item.texture, item.size, item.place)


def describe_fact(rng: np.random.Generator, fact: Fact) -> str:
    if fact.kind == "ground":
        return pick(rng, GROUND).format(fact.colour)
    if fact.kind == "none" and not (fact.shape or fact.colour):
        return pick(rng, EMPTY).format(pick(rng, AT).format(fact.place))
    if fact.kind == "thing":
        return pick(rng, ARTICLES) + describe_thing(rng, fact)
    return pick(rng, PHRASES[fact.kind]).format(thing=describe_thing(rng, fact), marker=fact.marker)


def describe_thing(rng: np.random.Generator, fact: Fact) -> str:
    """Gives "small striped red circle at the top left", less what the fact leaves open."""
    shape = fact.shape or pick(rng, ("thing", "object"))
    words = " ".join(word for word in (fact.size, fact.texture, fact.colour, shape) if word)
    return f"{words} {pick(rng, AT).format(fact.place)}" if fact.place else words


def describe_change(rng: np.random.Generator, fact: Fact, detail: str) -> str:
    """Puts a fact as an instruction that changes one detail of what is there."""
    if fact.kind == "ground":
        return pick(rng, REGROUND).format(fact.colour)
    thing = describe_thing(rng, replace(fact, **{detail: ""}))
    return pick(rng, CHANGES[detail]).format(thing=thing, value=getattr(fact, detail))


def describe_addition(rng: np.random.Generator, fact: Fact) -> str:
    """Puts a fact as an instruction that adds its thing."""
    return pick(rng, ADD).format(describe_thing(rng, fact))


def describe_facts(rng: np.random.Generator, facts: list[Fact]) -> str:
    joint = pick(rng, JOINTS)
    return joint.join(describe_fact(rng, fact) for fact in facts)


def drop_details(rng: np.random.Generator, fact: Fact, keep: float) -> Fact:
    """Leaves details open; each is kept with the chance `keep`."""
    dropped = {
        name: ""
        for name in ("texture", "size", "place", "shape", "colour")
        if getattr(fact, name) and rng.random() > keep
    }
    if not {"shape", "colour"} - dropped.keys() and "place" in dropped:
        dropped.pop("shape")  # "a thing" says nothing
    return replace(fact, **dropped)


def draw_facts(rng: np.random.Generator, scene: Scene, keep: float = 0.8) -> list[Fact]:
    """Draws true facts about a scene, in a random order; some are left out, some lack details."""
    facts = [drop_details(rng, make_fact(item), keep) for i, item in enumerate(scene.items) if not _is_marked(scene, i)]
    for mark in scene.marks:
        fact = make_fact(scene.items[mark.item])
        fact = replace(fact, texture="", size="") if mark.form == "paint" else fact
        facts.append(replace(drop_details(rng, fact, keep), kind=mark.form, marker=mark.colour))
    facts = [fact for fact in facts if rng.random() < 0.85 or fact.kind in ("box", "paint")]
    if rng.random() < 0.8:
        facts.append(Fact("ground", colour=scene.ground))
    if rng.random() < 0.3:
        facts.append(draw_absence(rng, scene))
    return [facts[i] for i in rng.permutation(len(facts))][:MAX_FACTS]


def draw_absence(rng: np.random.Generator, scene: Scene) -> Fact:
    """Draws something that the scene does not have."""
    free_places = [place for place in PLACES if scene.at(place) is None]
    missing_shapes = [shape for shape in SHAPES if all(item.shape != shape for item in scene.items)]
    if missing_shapes and rng.random() < 0.4:
        return Fact("none", shape=pick(rng, missing_shapes))
    place = pick(rng, free_places)
    return Fact("none", shape=pick(rng, ("", *SHAPES)), place=place)


def _is_marked(scene: Scene, index: int) -> bool:
    return any(mark.item == index for mark in scene.marks)
