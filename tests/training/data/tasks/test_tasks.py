"""Recipes: what the model is given, what it is to draw, and what it was told."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cologen.training.data.box import Box
from cologen.training.data.sample import Pair, Sample, Thing, Triple
from cologen.training.data.tasks.control import MAP_DRAWERS, blur, hed, lineart, make_control_example
from cologen.training.data.tasks.ground import COLOURS, FORMS, make_ground_example, read_box, read_colour, read_mask
from cologen.training.data.tasks.inpaint import make_inpaint_example
from cologen.training.data.tasks.pairs import make_edit_example, make_subject_example
from hypothesis import given, settings
from hypothesis import strategies as st

seeds = st.integers(0, 2**32 - 1)
ENTRIES = [("red cup", "cup"), ("dog", "dog"), ("blue cup", "cup")]


def scene(seed, size=(96, 128), entries=ENTRIES):
    """Greys, none of them 128, and discs side by side as things."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(60, 120, (*size, 1))
    picture = (grey + rng.integers(-5, 6, (*size, 3))).astype(np.uint8)
    ys, xs = np.mgrid[: size[0], : size[1]]
    things = []
    for i, (name, kind) in enumerate(entries):
        y, x, radius = rng.integers(25, size[0] - 25), 22 + 40 * i, rng.integers(8, 20)
        things.append(Thing(name, kind, (ys - y) ** 2 + (xs - x) ** 2 < radius**2))
    return Sample(f"scene {seed}", picture, "a cup, a dog and a cup", tuple(things))


def are_equal(a, b):
    return all(np.array_equal(getattr(a, part), getattr(b, part)) for part in ("source", "target")) and (
        (a.id, a.task, a.prompt, a.kind) == (b.id, b.task, b.prompt, b.kind)
    )


RECIPES = {
    "inpaint": (make_inpaint_example, scene),
    "ground": (make_ground_example, scene),
    "control": (lambda rng, sample: make_control_example(rng, sample, ["lineart", "hed"]), scene),
    "subject": (
        make_subject_example,
        lambda seed: Pair("a", scene(seed).picture, scene(seed + 1).picture, "one", "two"),
    ),
    "edit": (make_edit_example, lambda seed: Triple("a", scene(seed).picture, scene(seed + 1).picture, "remove it")),
}


@pytest.mark.parametrize("task", RECIPES)
def test_equal_seeds_give_equal_examples(task):
    recipe, data = RECIPES[task]
    examples = [recipe(np.random.default_rng(seed), data(3)) for seed in (0, 0, *range(1, 9))]
    assert are_equal(*examples[:2]) and {example.task for example in examples} == {task}
    assert task == "edit" or not all(are_equal(examples[0], example) for example in examples)


# inpaint


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_a_hole_is_grey_and_all_else_is_the_picture(seed):
    sample = scene(seed)
    before = sample.picture.copy()
    example = make_inpaint_example(np.random.default_rng(seed), sample)
    hole = (example.source == 128).all(-1)
    assert hole.any() and np.array_equal(example.source[~hole], before[~hole])
    assert np.array_equal(example.target, before) and np.array_equal(sample.picture, before)
    if example.kind == "random":
        assert example.prompt == sample.caption
    else:
        (thing,) = [thing for thing in sample.things if thing.name == example.prompt]
        assert example.kind == "irregular" or np.array_equal(hole, thing.mask)
        ys, xs = np.nonzero(thing.mask)
        assert hole[int(ys.mean()), int(xs.mean())]
    assert example.id == sample.id


def test_every_kind_of_hole_occurs_and_without_things_only_the_random_one():
    kinds = {make_inpaint_example(np.random.default_rng(seed), scene(seed)).kind for seed in range(40)}
    assert kinds == {"random", "object", "irregular"}
    bare = Sample("a", scene(0).picture, "a scene")
    assert {make_inpaint_example(np.random.default_rng(seed), bare).kind for seed in range(10)} == {"random"}


# ground


def name_what_is_asked(sample, example):
    """The things and the colour that a prompt names, found by reading it."""
    said = re.findall(f"(?:in|with) ({'|'.join(COLOURS)})", example.prompt)
    return [thing for thing in sample.things if getattr(thing, FORMS[example.kind].by) in example.prompt], said


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_what_was_drawn_is_what_was_asked_and_is_read_again(seed):
    sample = scene(seed)
    example = make_ground_example(np.random.default_rng(seed), sample)
    things, (colour,) = name_what_is_asked(sample, example)
    assert things and example.source is sample.picture
    changed = (example.target != example.source).any(-1)
    if example.kind == "instance":  # things stand side by side
        things = [thing for thing in things if changed[:, thing.box.x0].any()]
        assert len(things) == 1
    assert (example.target[changed] == COLOURS[colour]).all()
    union = np.logical_or.reduce([thing.mask for thing in things])
    assert read_colour(example.target, example.source) == colour
    if example.kind == "mask":
        assert np.array_equal(changed, union)
        assert np.array_equal(read_mask(example.target, example.source, colour), union)
    else:
        expected = np.zeros_like(changed)
        for thing in things:  # the line is four pixels wide, as 3 of 256 are fewer; or a quarter of a small thing
            ys, xs = np.nonzero(thing.mask)
            line = max(1, min(4, (ys.max() + 1 - ys.min()) // 4, (xs.max() + 1 - xs.min()) // 4))
            for y in range(ys.min(), ys.max() + 1):
                for x in range(xs.min(), xs.max() + 1):
                    if min(y - ys.min(), ys.max() - y, x - xs.min(), xs.max() - x) < line:
                        expected[y, x] = True
        assert np.array_equal(changed, expected)
    if example.kind in ("box", "instance"):
        (thing,) = things
        assert read_box(example.target, colour, example.source) == thing.box == read_box(example.target, colour)
    others = [read_box(example.target, other, example.source) for other in COLOURS if other != colour]
    assert others == [None] * 5


def test_all_instances_of_a_class_are_boxed_and_no_other():
    sample = scene(1)
    for seed in range(20):
        example = make_ground_example(np.random.default_rng(seed), sample, forms=["detect"])
        changed = (example.target != example.source).any(-1)
        found = [thing.kind for thing in sample.things if changed[thing.box.y0, thing.box.x0]]
        assert found == (["dog"] if "dog" in example.prompt else ["cup", "cup"])


def test_one_instance_of_a_class_is_boxed_each_as_often_whatever_names_it_has():
    sample, found = scene(1), Counter()
    dog, cup, other = sample.things[1], *(thing for thing in sample.things if thing.kind == "cup")
    sample = replace(sample, things=(dog, cup, replace(cup, name="the left one"), replace(cup, name="a cup"), other))
    for seed in range(300):
        example = make_ground_example(np.random.default_rng(seed), sample, forms=["instance"])
        changed = (example.target != example.source).any(-1)
        (box,) = {thing.box for thing in sample.things if changed[thing.box.y0, thing.box.x0]}
        assert (box == dog.box) == ("dog" in example.prompt)
        found[box] += 1
    assert found[dog.box] > 100 and abs(found[cup.box] - found[other.box]) < 50 and min(found.values()) > 50


def test_forms_colours_things_and_templates_all_come_up():
    sample, drawn = scene(1), {}
    for seed in range(600):
        example = make_ground_example(np.random.default_rng(seed), sample)
        drawn.setdefault(example.kind, []).append(example.prompt)
    for form, prompts in drawn.items():
        assert abs(len(prompts) / 600 - 1 / 3) < 0.1
        by = FORMS[form].by
        phrases = {getattr(thing, by) for thing in sample.things}
        possible = {
            template.format(thing=phrase, kind=phrase, colour=colour)
            for template in FORMS[form].templates
            for phrase in phrases
            for colour in COLOURS
        }
        assert set(prompts) <= possible and len(set(prompts)) > 0.75 * len(possible)
    assert drawn.keys() == {"box", "mask", "instance"} == FORMS.keys() - {"detect"}


def test_templates_name_what_is_asked_and_the_colour():
    for form in FORMS.values():
        field = {"name": "{thing}", "kind": "{kind}"}[form.by]
        assert len(set(form.templates)) > 2
        for template in form.templates:
            assert template.count(field) == 1 == template.count("{colour}") and template.count("{") == 2
            assert " a {" not in template and " an {" not in template


def test_forms_that_the_picture_cannot_answer_are_left_out():
    unnamed = scene(1, entries=[("", "cup")])
    assert {make_ground_example(np.random.default_rng(seed), unnamed).kind for seed in range(20)} == {"instance"}
    named = scene(1, entries=[("the cup", "")])
    assert {make_ground_example(np.random.default_rng(seed), named).kind for seed in range(30)} == {"box", "mask"}
    for sample, forms in ((named, ["detect"]), (Sample("bare", named.picture), None)):
        with pytest.raises(ValueError, match=f"'{sample.id}' has nothing to find .* leave it out"):
            make_ground_example(np.random.default_rng(0), sample, forms=forms)


def test_an_answer_shows_on_what_it_covers():
    """A red thing on green is never masked in red, nor framed in green."""
    sample = scene(1, entries=[("it", "cup")])
    (thing,) = sample.things
    sample.picture[:] = (20, 230, 10)
    sample.picture[thing.mask] = (240, 20, 20)
    colours = {form: set() for form in ("box", "mask")}
    for seed in range(60):
        example = make_ground_example(np.random.default_rng(seed), sample, forms=list(colours))
        (colour,) = name_what_is_asked(sample, example)[1]
        colours[example.kind].add(colour)
        assert read_colour(example.target, example.source) == colour
        if example.kind == "mask":
            assert np.array_equal(read_mask(example.target, example.source, colour), thing.mask)
        else:
            assert read_box(example.target, colour, example.source) == thing.box
    assert colours["mask"] == set(COLOURS) - {"red"} and "green" not in colours["box"]


def test_if_no_colour_shows_one_is_drawn_all_the_same():
    sample = scene(1, entries=[("it", "")])
    sample.picture[:] = (250, 0, 0)
    example = make_ground_example(np.random.default_rng(0), sample, colours={"red": (255, 0, 0)}, forms=["box"])
    assert (example.target[example.target != example.source] == 255).all()


@pytest.mark.parametrize("opacity", [1.0, 0.6, 0.3])
def test_a_sheer_mask_lets_the_picture_through_and_is_read_with_its_opacity(opacity):
    sample = scene(2)
    example = make_ground_example(np.random.default_rng(4), sample, forms=["mask"], opacity=opacity)
    (thing,), (colour,) = name_what_is_asked(sample, example)
    mixed = opacity * np.array(COLOURS[colour]) + (1 - opacity) * sample.picture.astype(float)
    expected = np.where(thing.mask[..., None], mixed, sample.picture)
    assert np.abs(example.target - expected).max() <= 0.5
    assert np.array_equal(read_mask(example.target, example.source, colour, opacity), thing.mask)
    assert read_colour(example.target, example.source, opacity) == colour
    boxed = make_ground_example(np.random.default_rng(4), sample, forms=["box"], opacity=opacity)
    (colour,) = name_what_is_asked(sample, boxed)[1]
    assert (boxed.target[(boxed.target != boxed.source).any(-1)] == COLOURS[colour]).all()


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_a_drifted_noisy_answer_is_still_read(seed):
    """As a model draws: every value a bit off, the colour duller, and some specks where none belong."""
    rng, sample = np.random.default_rng(seed), scene(seed)
    for form in ("box", "mask"):
        example = make_ground_example(rng, sample, forms=[form])
        (thing,), (colour,) = name_what_is_asked(sample, example)
        duller = np.where(
            (example.target != example.source).any(-1, keepdims=True), 0.8 * example.target + 25, example.target
        )
        drawn = duller + rng.normal(0, 8, duller.shape) + rng.uniform(-15, 15, 3)
        specks = rng.integers(0, np.array([[96], [128]]), (2, 12))
        drawn[specks[0], specks[1]] = COLOURS[colour]
        drawn = np.clip(drawn, 0, 255).astype(np.uint8)
        if form == "box":
            assert read_box(drawn, colour, example.source) == thing.box
        else:
            off = read_mask(drawn, example.source, colour) != thing.mask
            assert off.sum() <= 12
        assert read_colour(drawn, example.source) == colour


def test_nothing_drawn_nothing_read():
    picture = scene(3).picture
    noisy = np.clip(picture + np.random.default_rng(0).normal(0, 10, picture.shape), 0, 255).astype(np.uint8)
    for colour in COLOURS:
        assert read_box(noisy, colour, picture) is None and not read_mask(noisy, picture, colour).any()
    assert read_colour(noisy, picture) is None
    scattered = picture.copy()
    scattered[np.random.default_rng(1).random(picture.shape[:2]) < 0.02] = COLOURS["red"]
    assert read_box(scattered, "red", picture) is None


def test_a_neighbouring_colour_is_not_taken_for_the_asked_one():
    colours = {"red": (255, 0, 0), "orange": (255, 128, 0)}
    picture = np.full((32, 32, 3), (0, 0, 255), np.uint8)  # from here orange is most of the way to red
    target = picture.copy()
    target[8:16, 8:16] = colours["orange"]
    assert not read_mask(target, picture, "red", colours=colours).any()
    assert read_box(target, "red", picture, colours) is None
    assert read_box(target, "orange", picture, colours) == Box(8, 8, 16, 16)
    assert read_colour(target, picture, colours=colours) == "orange"


def test_things_that_have_the_colour_already_are_told_from_the_answer():
    picture = np.full((64, 64, 3), 90, np.uint8)
    picture[5:15, 5:60] = (250, 10, 10)
    target = picture.copy()
    target[30:50, 20:40] = (255, 0, 0)
    target[32:48, 22:38] = 90
    assert read_box(target, "red", picture) == Box(20, 30, 40, 50)
    assert read_box(target, "red") != Box(20, 30, 40, 50)
    assert read_mask(target, picture, "red").sum() == 20 * 20 - 16 * 16


def test_lines_grow_with_the_picture_and_leave_small_things_to_be_seen():
    for side, expected in ((128, 4), (512, 6), (1024, 12)):
        mask = np.zeros((side, side), bool)
        mask[side // 4 : side // 2, side // 4 : side // 2] = True
        sample = Sample("a", np.full((side, side, 3), 90, np.uint8), "", (Thing("it", "", mask),))
        example = make_ground_example(np.random.default_rng(0), sample, forms=["box"])
        row = (example.target != example.source).any(-1)[side // 3]
        assert row.sum() == 2 * expected
    mask[:] = False
    mask[100:108, 100:108] = True
    example = make_ground_example(
        np.random.default_rng(0), Sample("a", sample.picture, "", (Thing("it", "", mask),)), forms=["box"]
    )
    assert (example.target == example.source).all(-1)[102:106, 102:106].all()


# control


def test_canny_is_kornias_on_unit_range_and_its_thresholds():
    canny = pytest.importorskip("kornia.filters").canny
    sample = scene(0)
    sample.picture[sample.things[0].mask] = 250
    example = make_control_example(np.random.default_rng(0), sample, ["canny"])
    edges = canny(torch.tensor(sample.picture / 255.0).permute(2, 0, 1)[None].float(), 0.1, 0.2)[1][0, 0]
    assert 0 < edges.mean() < 1
    assert np.array_equal(example.source, np.stack([edges.numpy().astype(np.uint8) * 255] * 3, -1))
    assert (example.kind, example.prompt, example.id) == ("canny", sample.caption, sample.id)
    assert example.target is sample.picture


@settings(max_examples=15, deadline=None)
@given(seeds, st.floats(0.5, 4))
def test_blur_is_a_convolution_with_a_gaussian(seed, width):
    plane = np.random.default_rng(seed).random((30, 40)).astype(np.float32)
    reach = int(np.ceil(3 * width))
    offsets = torch.arange(-reach, reach + 1).double()
    weights = torch.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * width**2))
    wide = np.pad(plane, reach, "symmetric")
    expected = F.conv2d(torch.tensor(wide)[None, None].double(), (weights / weights.sum())[None, None])[0, 0]
    assert (blur(torch.from_numpy(plane), width) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("draw, paper", [(lineart, 255), (hed, 0)])
def test_where_nothing_is_the_map_is_empty(draw, paper):
    for colour in ((0, 0, 0), (255, 255, 255), (200, 30, 90)):
        assert (draw(np.full((40, 50, 3), colour, np.uint8)) == paper).all()
    assert (draw(scene(0).picture).shape, draw(scene(0).picture).dtype) == ((96, 128, 3), np.uint8)


@pytest.mark.parametrize("side, line", [(64, 1), (1024, 3)])
def test_line_art_draws_dark_lines_and_the_dark_side_of_edges(side, line):
    picture = np.full((side, side, 3), 200, np.uint8)
    picture[:, 20 : 20 + line] = 40
    picture[:, 40:] = 60
    row = lineart(picture)[10, :, 0].astype(int)
    (inked,) = np.nonzero(row < 128)
    assert row[20 : 20 + line].max() < 64 and row[40 : 40 + line].min() < 64
    assert set(inked) <= {*range(20, 20 + line), *range(40, 40 + line)}
    assert row[:12].min() == row[28:36].min() == row[50:].min() == 255


def test_line_art_sees_edges_between_equally_bright_colours():
    picture = np.full((64, 64, 3), (150, 0, 0), np.uint8)
    picture[:, 32:] = (0, 76, 0)  # the same luminance
    assert lineart(picture)[5, 30:34, 0].min() < 64


def test_soft_edges_fade_from_the_edge_and_grow_with_contrast():
    peaks = []
    for step in (20, 60, 200):
        picture = np.full((128, 128, 3), 30, np.uint8)
        picture[:, 64:] += np.uint8(step)
        row = hed(picture)[64, :, 0].astype(int)
        assert row.argmax() in (63, 64) and row[63] == row[64] and row[0] == row[-1] == 0
        assert (np.diff(row[:64]) >= 0).all() and (np.diff(row[64:]) <= 0).all()
        assert len(np.unique(row)) > 3
        peaks.append(row.max())
    assert peaks == sorted(set(peaks)) and peaks[-1] > 200


def test_a_step_weighs_the_same_at_every_scale(monkeypatch):
    picture = np.full((512, 64, 3), 100, np.uint8)
    picture = np.concatenate([picture, picture + np.uint8(30)], 1).repeat(4, 1)
    peaks = []
    for scale in (4, 8, 16):
        monkeypatch.setattr("cologen.training.data.tasks.control.SCALES", (scale,))
        peaks.append(int(hed(picture)[256].max()))
    assert max(peaks) - min(peaks) <= 2
    assert abs(peaks[-1] - 255 * (1 - np.exp(-4 * 30 / 255))) <= 2


def test_a_contour_weighs_more_than_a_speck():
    picture = np.full((512, 512, 3), 100, np.uint8)
    picture[:, 256:] = 180
    picture[100, 100] = 180
    soft = hed(picture)[..., 0]
    assert soft[90:111, 90:111].max() < 0.8 * soft[300, 240:270].max()


def test_maps_are_drawn_among_those_that_can_be_had():
    sample = scene(0)
    mine = {kind: np.full_like(sample.picture, i) for i, kind in enumerate(("depth", "seg", "hed"))}
    rich = Sample("rich", sample.picture, "caption", (), mine)
    kinds = [kind for kind in MAP_DRAWERS if kind != "canny"]
    drawn = [make_control_example(np.random.default_rng(seed), rich, kinds) for seed in range(80)]
    assert {example.kind for example in drawn} == {"lineart", "hed", "depth", "seg"}
    for example in drawn:
        expected = mine[example.kind] if example.kind in mine else lineart(rich.picture)
        assert np.array_equal(example.source, expected)
    poor = {
        make_control_example(np.random.default_rng(seed), sample, ["lineart", "seg", "depth"]).kind
        for seed in range(20)
    }
    assert poor == {"lineart"}
    with pytest.raises(ValueError, match=r"'scene 0' has no map of the kinds depth, seg \(it brings none\): ask"):
        make_control_example(np.random.default_rng(0), sample, ["depth", "seg"])


def test_without_kinds_any_map_of_the_table_comes_up():
    pytest.importorskip("kornia")
    sample = scene(0, size=(96, 128))
    assert {make_control_example(np.random.default_rng(seed), sample).kind for seed in range(12)} == {
        "canny",
        "lineart",
        "hed",
    }


# subject and edit


def test_a_pair_is_read_in_both_directions():
    pair = RECIPES["subject"][1](5)
    drawn = [make_subject_example(np.random.default_rng(seed), pair) for seed in range(60)]
    for example in drawn:
        source, target = (pair.first, pair.second) if example.prompt == "two" else (pair.second, pair.first)
        assert example.source is source and example.target is target
    assert 18 < [example.prompt for example in drawn].count("one") < 42


def test_an_edit_goes_from_before_to_after():
    triple = RECIPES["edit"][1](5)
    example = make_edit_example(np.random.default_rng(0), triple)
    assert example.source is triple.before and example.target is triple.after
    assert (example.prompt, example.id, example.task) == ("remove it", "a", "edit")
