"""What the base learns references from: one change is one, words say what is seen, and a mark is on what it names."""

import numpy as np
import pytest
from cologen.training.data.box import find_box
from cologen.training.data.tasks.ground import COLOURS
from cologen.training.world import render as drawing
from cologen.training.world.drawings import draw_any_scene, list_pool
from cologen.training.world.references import CHANGES, draw_after, draw_mark, draw_referenced
from cologen.training.world.render import find_visible_masks, render
from cologen.training.world.stickers import NAMED, list_stickers
from cologen.training.world.tasks import are_visible, draw_ground_scene
from cologen.training.world.text import read_facts
from cologen.training.world.words import list_references
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


def test_words_say_what_is_seen_and_ask_for_nothing():
    rng = np.random.default_rng(3)
    for _ in range(60):
        _, _, text = draw_after(rng)
        assert not any("verb" in fact for fact in read_facts(text)), text


def test_both_kinds_are_drawn_with_things_of_training_alone(monkeypatch):
    shown, draw_sticker = set(), drawing.draw_sticker
    monkeypatch.setattr(drawing, "draw_sticker", lambda name, *more: shown.add(name) or draw_sticker(name, *more))
    batches = [draw_referenced(np.random.default_rng(seed), 4) for seed in range(8)]
    assert {batch.task for batch in batches} == {"edit", "subject"}
    assert all(batch.references.shape == batch.pictures.shape == (4, 128, 128, 3) for batch in batches)
    assert shown and shown <= {*NAMED, *list_stickers()["pool"]}
