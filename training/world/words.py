"""What is said of the world: captions, and phrases that set one thing of a scene apart."""

from collections.abc import Sequence

import numpy as np

from ..toy.scene import pick
from .scene import Scene, Thing
from .stickers import NAMED

GROUND_WORDS = {
    "beach": "on a beach",
    "meadow": "in a meadow",
    "street": "on a street",
    "snow": "in the snow",
    "night": "at night",
    "room": "in a room",
}
AT = ("at the {}", "in the {}", "{}")
UNNAMED = "thing"
MENTIONED_SHARE = 0.9
"""Share of things and of grounds that a caption says."""


def call_thing(thing: Thing) -> str:
    """Gives "blue apple", "fox", or "thing"."""
    return f"{thing.hue} {thing.sticker}".strip() if thing.is_named else UNNAMED


def add_article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def say_place(rng: np.random.Generator, place: str) -> str:
    return "in the middle" if place == "middle" else pick(rng, AT[: 2 if " " not in place else 3]).format(place)


def say_where(thing: Thing) -> str:
    return "in the middle" if thing.place == "middle" else f"at the {thing.place}"


def describe_thing(rng: np.random.Generator, thing: Thing, keep: float = 0.75) -> str:
    """Gives "a small blue apple at the top left"; size and place are kept with a chance."""
    size = f"{thing.size} " if thing.size != "normal" and rng.random() < keep else ""
    words = add_article(size + call_thing(thing))
    return f"{words} {say_place(rng, thing.place)}" if rng.random() < keep else words


def describe_scene(rng: np.random.Generator, scene: Scene, keep: float = 0.75, share: float = MENTIONED_SHARE) -> str:
    """Says things and ground in any order."""
    parts = [describe_thing(rng, thing, keep) for thing in scene.things if rng.random() < share]
    parts += [GROUND_WORDS[scene.ground]] if rng.random() < share else []
    return ", ".join(parts[i] for i in rng.permutation(len(parts)))


def list_references(things: Sequence[Thing], index: int) -> list[str]:
    """Lists phrases that fit one of the things and no other: by name, by class, by size, by side."""
    thing = things[index]
    phrases = []
    for words, alike in _list_calls(things, thing):
        if len(alike) == 1:
            phrases.append(f"the {words}")
            continue
        phrases += [f"the small {words}"] if _is_alone(alike, thing, "size", "small") else []
        phrases += [f"the {words} at the {thing.place}"] if _is_alone(alike, thing, "place", thing.place) else []
        phrases += [f"the {side} {words}" for side in _list_sides(alike, thing)]
    return phrases


def _list_calls(things: Sequence[Thing], thing: Thing) -> list[tuple[str, list[Thing]]]:
    """Lists words that a thing answers to, and all things that do."""
    if not thing.is_named:
        return [(UNNAMED, [other for other in things if not other.is_named])]
    alike = [other for other in things if other.sticker == thing.sticker]
    kind = NAMED[thing.sticker]
    calls = [(thing.sticker, alike)]
    if thing.hue:
        calls.append((call_thing(thing), [other for other in alike if other.hue == thing.hue]))
    if kind != "object":
        calls.append((kind, [other for other in things if NAMED.get(other.sticker) == kind]))
    return calls


def _is_alone(things: Sequence[Thing], thing: Thing, field: str, value: str) -> bool:
    return getattr(thing, field) == value and sum(getattr(other, field) == value for other in things) == 1


def _list_sides(things: Sequence[Thing], thing: Thing, gap: int = 16) -> list[str]:
    """Lists at which ends of the things this one is, clearly."""
    others = [other for other in things if other is not thing]
    sides = {
        "left": all(thing.x + gap <= other.x for other in others),
        "right": all(thing.x >= other.x + gap for other in others),
        "upper": all(thing.y + gap <= other.y for other in others),
        "lower": all(thing.y >= other.y + gap for other in others),
    }
    return [side for side, holds in sides.items() if holds]
