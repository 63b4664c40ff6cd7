"""The toy world: pictures, words and oracle agree with each other, and its models with the host's."""

import numpy as np
import pack  # noqa: F401
import pytest
import torch
from cologen.training.from_scratch.evaluate import bootstrap_interval
from cologen.training.from_scratch.text import UNKNOWN, TextEncoder, split_words
from cologen.training.from_scratch.vae import (
    Components,
    SmallVAE,
    collapse_encoder,
    make_principal_encoder,
    split_patches,
    to_tensor,
)
from cologen.training.toy import tasks as toy_tasks
from cologen.training.toy.large import enlarge
from cologen.training.toy.oracle import read_scene
from cologen.training.toy.render import draw_depth_map, draw_frame, draw_item_mask, render
from cologen.training.toy.scene import COLOURS, CORNER, PLACES, SIZES, add_mark, draw_scene
from cologen.training.toy.score import SCORERS, compute_edge_f1, compute_mean_iou, score_depth_order
from cologen.training.toy.tasks import QUESTION_MAKERS, make_questions
from cologen.training.toy.text import LANGUAGE, draw_text
from cologen.training.toy.words import draw_facts
from PIL import Image, ImageFilter


def scenes(count, seed=0):
    rng = np.random.default_rng(seed)
    return [draw_scene(rng) for _ in range(count)]


def agrees(scene, reading):
    return set(scene.items) == set(reading.scene.items) and scene.ground == reading.scene.ground


@pytest.mark.slow
def test_the_oracle_reads_true_pictures():
    right = []
    for scene in scenes(400):
        reading = read_scene(render(scene))
        right.append(agrees(scene, reading) and all(reading.is_sure(item.place) for item in scene.items))
    assert np.mean(right) >= 0.995


@pytest.mark.slow
def test_the_oracle_reads_pictures_that_a_decoder_blurred():
    right = []
    for i, scene in enumerate(scenes(200, 1)):
        soft = np.array(Image.fromarray(render(scene)).filter(ImageFilter.GaussianBlur(0.8)), int)
        soft = soft + np.random.default_rng(i).normal(0, 6, soft.shape)
        reading = read_scene(soft.clip(0, 255).astype(np.uint8))
        named = {(item.shape, item.colour, item.texture, item.size, item.place) for item in scene.items}
        found = {(item.shape, item.colour, item.texture, item.size, item.place) for item in reading.scene.items}
        right.append(named == found)
    assert np.mean(right) >= 0.98


@pytest.mark.parametrize("side", [96, 128])
def test_larger_pictures_show_the_same_world(side):
    """Made smaller they are the usual pictures, but for their edges, and every question's true answer is right."""
    for scene in scenes(12, 4):
        small = np.asarray(Image.fromarray(render(scene, side)).resize((64, 64), Image.Resampling.BOX), int)
        off = abs(small - render(scene))
        assert off.mean() < 3 and agrees(scene, read_scene(small.astype(np.uint8)))
    world = enlarge(side)
    for task in QUESTION_MAKERS:
        for question in world.ask_held_out(task, 6, 7):
            assert question.example.source.shape == question.example.target.shape == (side, side, 3)
            scores = world.scorers[task](question, question.example.target)
            less_is_better = scores.keys() & {"outside", "rest"}
            assert all(scores[name] == 0 for name in less_is_better)
            assert all(scores[name] > 0.85 for name in scores.keys() - less_is_better)


@pytest.mark.parametrize("side", [0, 48, 100, 512])
def test_a_side_that_cannot_be_is_a_sentence(side):
    with pytest.raises(ValueError, match=f"The pictures' side is {side}, expected a multiple of 16 from 64 to 256"):
        enlarge(side)


@pytest.mark.parametrize("damage", ["erased", "half", "recoloured", "smeared"])
def test_the_oracle_notices_what_was_broken(damage):
    noticed = []
    for scene in scenes(100, 2):
        item, picture = scene.items[0], render(scene)
        mask, ground = draw_item_mask(item), np.array(picture[0, 32])
        if damage == "erased":
            picture[mask] = ground
        elif damage == "half":
            right = np.zeros_like(mask)
            right[:, CORNER * PLACES[item.place][1] + CORNER // 2 :] = True
            picture[mask & right] = ground
        elif damage == "recoloured":
            other = next(c for name, c in COLOURS.items() if name != item.colour)
            picture[mask] = other
        else:
            rng = np.random.default_rng(3)
            picture[mask] = rng.integers(0, 256, (mask.sum(), 3))
        reading = read_scene(picture)
        found = reading.scene.at(item.place)
        noticed.append(found is None or found != item or not reading.is_sure(item.place))
    assert np.mean(noticed) >= 0.99


def test_stated_facts_are_true_and_words_are_known():
    rng, reader, unknown = np.random.default_rng(0), TextEncoder(LANGUAGE), set()
    for _ in range(500):
        scene = add_mark(rng, draw_scene(rng), 0.4)
        for fact in draw_facts(rng, scene):
            assert holds(scene, fact), (scene, fact)
        text, _ = draw_text(rng)
        unknown |= strangers(reader, text)
    for task in QUESTION_MAKERS:
        for question in make_questions(task, 50, 5):
            unknown |= strangers(reader, question.example.prompt)
            assert len(split_words(question.example.prompt)) <= 80
    assert unknown == {"and"}, "it joins phrases, and says nothing"


def strangers(reader, text):
    tokens = reader.tokenize([text])[0].tolist()
    return {word for word, token in zip(split_words(text), tokens) if token == UNKNOWN}


def holds(scene, fact):
    if fact.kind == "ground":
        return scene.ground == fact.colour
    fits = [
        i
        for i, item in enumerate(scene.items)
        if all(
            getattr(fact, name) in ("", getattr(item, name)) for name in ("shape", "colour", "texture", "size", "place")
        )
    ]
    if fact.kind == "none":
        return not fits
    if fact.kind == "thing":
        return bool(fits)
    return any(m.item in fits and m.form == fact.kind and m.colour == fact.marker for m in scene.marks)


@pytest.mark.parametrize("task", list(QUESTION_MAKERS))
def test_the_truth_scores_full_marks_and_the_source_does_not(task):
    better_low = {"outside", "rest"}
    truth, source = {}, {}
    for question in make_questions(task, 40, 3):
        for scores, picture in ((truth, question.example.target), (source, question.example.source)):
            for name, value in SCORERS[task](question, picture).items():
                scores.setdefault(name, []).append(value)
    if task == "ground":  # a triangle's tip is half a pixel wide: painted, it is no marker's colour
        assert np.mean(truth.pop("iou")) > 0.99
    assert all(np.mean(values) == (0 if name in better_low else 1) for name, values in truth.items())
    main = {"inpaint": "hit", "ground": "iou", "control": "depth", "subject": "kept", "edit": "done"}[task]
    assert np.mean(source[main]) < 0.6


def test_questions_follow_from_their_seed():
    for task in QUESTION_MAKERS:
        first, again, other = (make_questions(task, 3, seed)[2].example for seed in (1, 1, 2))
        assert first.prompt == again.prompt and np.array_equal(first.source, again.source)
        assert not np.array_equal(first.target, other.target)


def test_measures_against_loops():
    rng = np.random.default_rng(0)
    drawn, wanted = rng.random((12, 12)) < 0.2, rng.random((12, 12)) < 0.2

    def near(y, x, mask):
        return any(
            mask[j, i] for j in range(max(0, y - 1), min(12, y + 2)) for i in range(max(0, x - 1), min(12, x + 2))
        )

    precision = np.mean([near(y, x, wanted) for y, x in zip(*np.nonzero(drawn))])
    recall = np.mean([near(y, x, drawn) for y, x in zip(*np.nonzero(wanted))])
    assert compute_edge_f1(drawn, wanted) == pytest.approx(2 * precision * recall / (precision + recall))

    a, b = (
        rng.integers(0, 2, (12, 12, 1)) * np.ones(3, int) * 255,
        rng.integers(0, 2, (12, 12, 1)) * np.ones(3, int) * 255,
    )
    shares = [
        ((a == c).all(-1) & (b == c).all(-1)).sum() / ((a == c).all(-1) | (b == c).all(-1)).sum() for c in (0, 255)
    ]
    assert compute_mean_iou(a, b) == pytest.approx(np.mean(shares))

    low, high = bootstrap_interval(np.array([0.0, 1.0] * 128))
    assert 0.43 < low < 0.5 < high < 0.57  # 0.5 -+ 1.96 * 0.5 / 16


def test_depth_order_counts_pairs():
    scene = next(s for s in scenes(50) if {item.size for item in s.items} == set(SIZES) and len(s.items) == 2)
    assert score_depth_order(scene, read_scene(render(scene))) == 1
    big = next(i for i, item in enumerate(scene.items) if item.size == "big")
    shrunk = scene.change_item(big, size="small").change_item(1 - big, size="big")
    assert score_depth_order(scene, read_scene(render(shrunk))) == pytest.approx(
        4 / 5
    )  # of five unequal pairs one is turned
    assert np.unique(draw_depth_map(scene)).tolist() == [20, 130, 230]


def test_a_frame_lies_round_its_thing():
    for scene in scenes(20):
        mask = draw_item_mask(scene.items[0])
        box = draw_frame(mask)
        assert box.any() and (box & mask).sum() <= 0.05 * mask.sum(), "only at the picture's edge may it touch"


def test_the_encoder_is_the_components_exactly():
    pictures = to_tensor(np.stack([render(scene) for scene in scenes(60)]))
    components, vae = Components.fit(pictures), SmallVAE()
    vae.taesd_encoder = make_principal_encoder(components)
    wanted = components.encode(pictures) / 0.3611 + 0.1159  # FLUX.1's scale and shift
    with torch.no_grad():
        found = vae.encode(pictures)
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()
    weight, bias = collapse_encoder(vae)
    assert torch.allclose((split_patches(pictures) @ weight + bias).movedim(-1, 1), wanted, atol=1e-3)
    flat = split_patches(pictures).flatten(0, -2)
    values = torch.linalg.svdvals((flat - flat.mean(0)).double())
    kept = ((components.decode(components.encode(pictures)) - pictures) ** 2).sum().double()
    assert kept == pytest.approx((values[16:] ** 2).sum().item(), rel=1e-3), "16 principal components lose the least"


def test_every_kind_of_edit_is_asked():
    kinds = {question.example.kind for question in make_questions("edit", 80, 0)}
    assert kinds == set(toy_tasks.EDITS)
