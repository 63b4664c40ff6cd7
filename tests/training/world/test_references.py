"""What the base learns references from: one change is one, words say what is seen, and a mark is on what it names."""

import numpy as np
import pytest
from cologen.training.data.box import find_box
from cologen.training.data.tasks.ground import COLOURS
from cologen.training.world import render as drawing
from cologen.training.world.drawings import draw_any_scene
from cologen.training.world.references import CHANGES, MIN_SEEN, draw_after, draw_mark, draw_referenced
from cologen.training.world.render import find_visible_masks, render
from cologen.training.world.stickers import NAMED, list_stickers
from cologen.training.world.text import read_facts


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
        scene = draw_any_scene(rng)
        picture, words = draw_mark(rng, scene)
        painted = (picture != render(scene)).any(-1)
        visible = find_visible_masks(scene)
        assert bool(words) == any(
            thing.is_named and mask.sum() >= MIN_SEEN for thing, mask in zip(scene.things, visible)
        )
        if not words:
            assert not painted.any()
            continue
        name = words.split(" around ")[-1].split(" ", 1)[1].removeprefix(f"{words.split()[1]} ")
        (mask,) = [
            mask for thing, mask in zip(scene.things, visible) if name in (thing.sticker, NAMED.get(thing.sticker))
        ]
        is_colour = (picture == COLOURS[words.split()[1]]).all(-1)
        assert is_colour[painted].all()
        if " box around " in words:
            assert find_box(painted) == find_box(mask)
        else:
            assert is_colour[mask].all() and not painted[~mask].any()
        forms.add(" box around " in words)
    assert len(forms) == 2


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
