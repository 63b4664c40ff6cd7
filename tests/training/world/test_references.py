"""What the base learns references from: one change is one, words say what is seen, and a mark is on what it names."""

import re
from dataclasses import replace

import numpy as np
import pytest
from cologen.training.data.box import find_box
from cologen.training.data.tasks.ground import COLOURS
from cologen.training.world import render as drawing
from cologen.training.world.drawings import draw_any_scene, list_pool
from cologen.training.world.edits import WORDS, draw_edit
from cologen.training.world.references import (
    CHANGE_KIND_SHARES,
    CHANGE_WORDS,
    CHANGES,
    MAX_ELSEWHERE,
    draw_after,
    draw_after_subject,
    draw_elsewhere,
    draw_mark,
    draw_referenced,
)
from cologen.training.world.render import find_visible_masks, render
from cologen.training.world.stickers import NAMED, list_stickers
from cologen.training.world.tasks import are_visible, draw_ground_scene
from cologen.training.world.text import MAX_FACTS, read_facts
from cologen.training.world.words import GROUND_WORDS, list_references, say_where
from mark_words import read_mark_words


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_one(kind):
    rng, seen = np.random.default_rng(1), 0
    for _ in range(30):
        scene = draw_any_scene(rng)
        changed = CHANGES[kind](rng, scene)
        if changed is None:
            continue
        seen += 1
        one, other = set(scene.things), set(changed.things)
        grounds = {(each.ground, each.horizon, each.seed) for each in (scene, changed)}
        assert (len(one - other), len(other - one), len(grounds)) == {
            "take": (1, 0, 1),
            "bring": (0, 1, 1),
            "ground": (0, 0, 2),
        }.get(kind, (1, 1, 1))
    assert seen >= 5


def test_a_mark_is_on_what_its_words_name():
    rng, forms = np.random.default_rng(2), set()
    for _ in range(40):
        scene = draw_ground_scene(rng, list_pool())
        picture, words = draw_mark(rng, scene)
        painted = (picture != render(scene)).any(-1)
        named = [
            references
            for i, seen in enumerate(are_visible(scene))
            if seen and scene.things[i].is_named and (references := list_references(scene.things, i))
        ]
        assert bool(words) == bool(named)
        if not words:
            assert not painted.any()
            continue
        framed, reference, colour = read_mark_words(words)
        (mask,) = [
            mask for i, mask in enumerate(find_visible_masks(scene)) if reference in list_references(scene.things, i)
        ]
        is_colour = (picture == COLOURS[colour]).all(-1)
        assert is_colour[painted].all()
        if framed:
            assert find_box(painted) == find_box(mask)
        else:
            assert is_colour[mask].all() and not painted[~mask].any()
        forms.add((framed, len(reference.split()) > 2))
    assert len(forms) == 4


def test_words_give_no_orders():
    rng = np.random.default_rng(3)
    for draw in (draw_after, draw_after_subject):
        for _ in range(60):
            _, _, text = draw(rng)
            assert {fact.get("verb", "now") for fact in read_facts(text)} <= {"now"}, text


def test_every_change_with_words_has_a_share():
    assert set(CHANGE_KIND_SHARES) == set(CHANGE_WORDS) < set(WORDS) and sum(CHANGE_KIND_SHARES.values()) == 1


@pytest.mark.parametrize("kind", CHANGE_WORDS)
def test_words_of_a_change_are_an_edit_s_in_other_words(kind):
    for seed in range(10):
        (before, change), (same, edit) = (
            draw_edit(np.random.default_rng(seed), list_pool(), kind, {kind: words[kind][:1]})
            for words in (CHANGE_WORDS, WORDS)
        )
        assert same == before and edit.after == change.after
        words, instruction = (set(each.prompt.replace(",", "").split()) for each in (change, edit))
        assert words - instruction <= {"for", "now"} and "verb" in read_facts(edit.prompt)[0]


def test_each_thing_that_is_elsewhere_is_where_its_words_say():
    rng, counts, named = np.random.default_rng(4), set(), set()
    for _ in range(60):
        reference, scene, words = draw_elsewhere(rng)
        *moves, ground = re.split(r"(?<=\w), (?!now)", words)
        assert ground == GROUND_WORDS[scene.ground] and len(moves) == len(scene.things) <= MAX_ELSEWHERE
        assert len(read_facts(words)) <= MAX_FACTS
        for move, thing in zip(moves, scene.things, strict=True):
            phrase, where = move.split(", now ")
            (shown,) = [
                other for i, other in enumerate(reference.things) if phrase in list_references(reference.things, i)
            ]
            assert replace(shown, x=thing.x, y=thing.y) == thing and where == say_where(thing)
        counts.add(len(moves))
        named |= {thing.is_named for thing in scene.things}
    assert counts == {2, 3} and named == {False, True}


def test_both_kinds_are_drawn_with_things_of_training_alone(monkeypatch):
    shown, draw_sticker = set(), drawing.draw_sticker
    monkeypatch.setattr(drawing, "draw_sticker", lambda name, *more: shown.add(name) or draw_sticker(name, *more))
    batches = [draw_referenced(np.random.default_rng(seed), 4) for seed in range(8)]
    assert {batch.task for batch in batches} == {"edit", "subject"}
    assert all(batch.references.shape == batch.pictures.shape == (4, 128, 128, 3) for batch in batches)
    assert shown and shown <= {*NAMED, *list_stickers()["pool"]}
