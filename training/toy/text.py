"""The toy world's language: its words, and texts with the facts that they state."""

import numpy as np

from ..from_scratch.text import label_facts, list_words
from ..from_scratch.world import Labels, Language
from .scene import add_mark, draw_scene, pick
from .words import (
    ADD,
    ARTICLES,
    AT,
    CHANGES,
    EMPTY,
    GROUND,
    JOINTS,
    MAX_FACTS,
    PHRASES,
    REGROUND,
    VALUES,
    Fact,
    describe_addition,
    describe_change,
    describe_fact,
    draw_facts,
)


def list_vocabulary() -> tuple[str, ...]:
    """Lists every word of the sentences of words.py, but for "and" between them, which says nothing."""
    templates = [*ARTICLES, *AT, *GROUND, *EMPTY, *ADD, *REGROUND, "thing object"]
    templates += [phrase for group in (PHRASES, CHANGES) for phrases in group.values() for phrase in phrases]
    return list_words([*templates, *(value for values in list(VALUES.values())[1:] for value in values)])


def draw_text(rng: np.random.Generator) -> tuple[str, list[Fact]]:
    """Draws a caption, an instruction, or an empty text, and the facts that it states."""
    if rng.random() < 0.05:
        return "", []
    facts = draw_facts(rng, add_mark(rng, draw_scene(rng), 0.4), keep=rng.choice([0.4, 0.7, 1.0]))
    joint = pick(rng, JOINTS)
    return joint.join(_phrase_fact(rng, fact) for fact in facts), facts


def _phrase_fact(rng: np.random.Generator, fact: Fact) -> str:
    """Describes a fact, as a change or an addition now and then."""
    details = [name for name in CHANGES if getattr(fact, name)] if fact.kind in ("thing", "ground") else []
    if not details or rng.random() < 0.6:
        return describe_fact(rng, fact)
    if fact.kind == "thing" and rng.random() < 0.3:
        return describe_addition(rng, fact)
    return describe_change(rng, fact, pick(rng, details))


def draw_labelled(rng: np.random.Generator) -> tuple[str, Labels]:
    text, facts = draw_text(rng)
    return text, label_facts([vars(fact) for fact in facts], LANGUAGE)


LANGUAGE = Language(list_vocabulary(), JOINTS, MAX_FACTS, VALUES, draw_labelled)
