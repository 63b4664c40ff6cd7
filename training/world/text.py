"""The sticker world's language: its words, and texts with the facts that they state.

A fact is what stands between two joints: a thing of a caption, or a part of an instruction ("replace the left fox", "a cat").
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from ..data.tasks.ground import COLOURS, FORMS, PAPER_FORMS
from ..from_scratch.text import label_facts, list_words
from ..from_scratch.world import Labels, Language
from ..toy.scene import pick
from .edits import SIDES, WORDS, draw_edit
from .grounds import GROUNDS
from .scene import PLACES, SIZES, Thing, draw_ground_of_scene, draw_names, draw_scene, fill_scene, show_things
from .stickers import CLASSES, HUES, NAMED, list_stickers
from .tasks import UNNAMED_SHARE, describe_subject, name_class
from .words import AT, GROUND_WORDS, UNNAMED, describe_scene, list_references

MAX_FACTS = 8
JOINTS = (", ", ". ", "? ", ": ", " and ", " with ", " into ", " for ", " around ", " all ", " to ")
JOINTS += tuple(f" {side} " for side in SIDES)
ENDS = ("upper", "lower", "left", "right", "top", "bottom", "middle")
VERBS = (
    "replace", "turn", "swap", "remove", "erase", "take", "make", "paint", "put", "add", "draw", "change", "show",
    "frame", "where", "cover", "segment", "which", "detect", "find", "mark", "now",
)  # fmt: skip
FIELDS: Mapping[str, Sequence[str]] = {
    "verb": VERBS,
    "thing": (UNNAMED, *NAMED, *(kind for kind in CLASSES if kind != "object")),
    "size": tuple(SIZES),
    "hue": tuple(dict.fromkeys((*HUES, *COLOURS))),
    "row": tuple(end for end in ENDS if end not in ("left", "right")),
    "column": ("left", "right"),
    "side": tuple(SIDES),
    "ground": tuple(GROUNDS),
    "form": ("box", "rectangle", "mask", "pixels"),
}
"""What words of a fact are looked for."""
LAST = "last"
"""A hue at a fact's end: what a thing becomes, or the colour of an answer."""
VALUES = {name: ("", *words) for name, words in (*FIELDS.items(), (LAST, FIELDS["hue"]))}
PATTERNS = {name: re.compile(rf"\b(?:{'|'.join(words)})\b") for name, words in FIELDS.items()}
LAST_HUE = re.compile(rf"\b({'|'.join(FIELDS['hue'])})$")
SPLIT = re.compile(f"({'|'.join(map(re.escape, JOINTS))})")
SHARES = {"": 0.05, "caption": 0.45, "edit": 0.25, "ground": 0.1, "subject": 0.15}
"""Of kinds of texts; the first is empty."""
KEPT_SHARES = (0.5, 0.75, 1.0)
"""How much of sizes and places captions tell."""


def list_vocabulary() -> tuple[str, ...]:
    forms = [template for name in PAPER_FORMS for template in FORMS[name].templates]
    edits = [template for templates in WORDS.values() for template in templates]
    words = [word for words in FIELDS.values() for word in words]
    return list_words([*forms, *edits, *words, *AT, *GROUND_WORDS.values(), *PLACES, "a an the now"])


def read_facts(text: str) -> list[dict[str, str]]:
    """Reads off a text what each of its facts states."""
    parts = [*SPLIT.split(text.lower().rstrip(".")), ""]
    return [read_fact(words, joint.strip()) for words, joint in zip(parts[::2], parts[1::2]) if words]


def read_fact(words: str, joint: str) -> dict[str, str]:
    """Reads what one fact states; a side belongs to what stands before it."""
    last = LAST_HUE.search(words)
    rest = words[: last.start()] if last else words
    found = {name: match.group() for name, pattern in PATTERNS.items() if (match := pattern.search(rest))}
    found |= {"side": joint} if joint in SIDES else {}
    return found | ({LAST: last.group()} if last else {})


def draw_text(rng: np.random.Generator) -> str:
    """Draws a caption, an instruction, or an empty text."""
    kind, pool = str(rng.choice(list(SHARES), p=list(SHARES.values()))), list_stickers()["pool"]
    if kind == "edit":
        return draw_edit(rng, pool)[1].prompt
    if kind == "subject":
        return draw_subject_text(rng, pool)
    scene = draw_scene(rng, unnamed=pool, share=UNNAMED_SHARE)
    if kind == "ground":
        index = int(rng.integers(len(scene.things)))
        form = FORMS[pick(rng, PAPER_FORMS)]
        asked = {"name": list_references(scene.things, index), "kind": draw_class(rng, scene.things[index])}[form.by]
        words = pick(rng, asked or [f"the {UNNAMED}"])
        return pick(rng, form.templates).format(thing=words, kind=words, colour=pick(rng, COLOURS))
    return describe_scene(rng, scene, pick(rng, KEPT_SHARES)) if kind else ""


def draw_class(rng: np.random.Generator, thing: Thing) -> list[str]:
    """Draws the word by which a thing is one of its kind; none, if it has no such word."""
    kind = name_class(thing, rng.random() < 0.5) if thing.is_named else ""
    return [kind] if kind else []


def draw_subject_text(rng: np.random.Generator, unnamed: tuple[str, ...]) -> str:
    source = show_things(rng, draw_names(rng, int(rng.integers(1, 4)), unnamed))
    references = [words for i in range(len(source.things)) for words in list_references(source.things, i)]
    target = fill_scene(rng, draw_ground_of_scene(rng), [pick(rng, unnamed), pick(rng, NAMED)], 0.7)
    return describe_subject(rng, target, pick(rng, references))


def draw_labelled(rng: np.random.Generator) -> tuple[str, Labels]:
    text = draw_text(rng)
    return text, label_facts(read_facts(text), LANGUAGE)


LANGUAGE = Language(list_vocabulary(), JOINTS, MAX_FACTS, VALUES, draw_labelled, width=128, pooled=128)
