"""The world of stickers: its questions show what they say, and the oracle reads them back and notices what was broken."""

import io
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pack
import pytest
from cologen.training.data.sample import MAP_KINDS, Example
from cologen.training.world.edits import EDITS, draw_edit
from cologen.training.world.grounds import GROUNDS, SIDE, draw_ground
from cologen.training.world.oracle import MIN_OVERLAP, is_behind, read_scene, sort_by_depth
from cologen.training.world.render import draw_thing_mask, find_visible_masks, render
from cologen.training.world.scene import (
    CENTRES,
    CORNERS,
    ONE_A_PLACE,
    PLACES,
    SIZES,
    Scene,
    Thing,
    are_apart,
    draw_scene,
    name_place,
)
from cologen.training.world.score import SCORERS, compare_depth, is_at, is_in_place, list_asked
from cologen.training.world.stickers import COLOURED, KINDS, NAMED, draw_sticker, list_hues, list_stickers, turn_hue
from cologen.training.world.tasks import QUESTION_MAKERS, Question, make_questions
from cologen.training.world.words import list_references, say_where
from PIL import Image, ImageFilter


def scenes(count, seed=0):
    """Scenes whose things have left the grid, as those that a model draws may."""
    rng = np.random.default_rng(seed)
    return [nudge(draw_scene(rng), rng) for _ in range(count)]


def nudge(scene, rng):
    for i, thing in enumerate(scene.things):
        x, y = (int(shift) for shift in rng.integers(-3, 4, 2))
        moved = replace(thing, x=thing.x + x, y=thing.y + y)
        others = (other for other in scene.things if other is not thing)
        if fits(moved) and all(are_apart(moved, other) for other in others):
            scene = scene.change_thing(i, x=moved.x, y=moved.y)
    return scene


def fits(thing):
    """Whether all of a thing is in the picture."""
    half = SIZES[thing.size] // 2
    return all(half <= centre <= SIDE - half for centre in (thing.x, thing.y))


@pytest.mark.parametrize("task, count", [(task, 240 if task == "subject" else 60) for task in QUESTION_MAKERS])
def test_all_things_of_training_stand_on_whole_tokens(task, count):
    things = [
        thing
        for question in make_questions(task, count, 5)
        for scene in (question.scene, question.before)
        if scene is not None
        for thing in scene.things
    ]
    assert len(things) > 60 and all(thing.x % 16 == thing.y % 16 == 8 and fits(thing) for thing in things)
    assert len({(thing.x, thing.y) for thing in things}) == len(CENTRES) ** 2


def describe(scene):
    """Everything that is read of things, but their exact position."""
    return sorted((thing.sticker, thing.size, thing.hue) for thing in scene.things)


def agrees(scene, reading):
    near = all(
        any(max(abs(thing.x - found.x), abs(thing.y - found.y)) <= 1 for found in reading.find(thing.sticker))
        for thing in scene.things
    )
    return describe(scene) == describe(reading.scene) and near and reading.scene.ground == scene.ground


def compress(picture, quality=75):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def blur(picture, radius):
    return np.array(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def test_stickers_are_apart():
    lists = [set(list_stickers()[kind]) for kind in KINDS]
    assert len(set.union(*lists)) == sum(map(len, lists)) and list_stickers()["named"] == tuple(NAMED)
    assert len(lists[1]) >= 400 and len(lists[2]) == 128


def test_a_turn_of_hue_keeps_the_greatest_and_smallest_channel():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    turned = turn_hue(pixels, 85).astype(int)
    assert abs(turned.max(-1) - pixels.max(-1)).max() <= 1 and abs(turned.min(-1) - pixels.min(-1)).max() <= 2
    assert turn_hue(np.uint8([[[200, 0, 0]]]), 85).argmax() == 1  # a third of a turn: red becomes green


def test_every_colour_that_a_thing_can_have_shows():
    for name in COLOURED:
        looks = [draw_sticker(name, 48, hue)[..., :3] for hue in ("", *list_hues(name))]
        assert all(abs(a - b).mean() > 8 for i, a in enumerate(looks) for b in looks[:i])


@pytest.mark.slow
def test_the_oracle_reads_true_pictures():
    right = [agrees(scene, read_scene(render(scene))) for scene in scenes(200)]
    assert np.mean(right) >= 0.99


@pytest.mark.long
@pytest.mark.slow
def test_the_oracle_reads_pictures_that_lost_a_little():
    right = [agrees(scene, read_scene(compress(render(scene)))) for scene in scenes(60, 1)]
    soft = [agrees(scene, read_scene(blur(render(scene), 0.8))) for scene in scenes(60, 2)]
    assert np.mean(right) >= 0.95 and np.mean(soft) >= 0.95


DAMAGES = ("moved", "removed", "hue", "sticker", "blurred", "ground")


def damage(scene, kind, rng):
    """Draws a scene with something wrong about its front thing, which the oracle must notice."""
    last = len(scene.things) - 1
    thing = scene.things[last]
    if kind == "moved":
        scene = scene.change_thing(last, x=thing.x + (24 if thing.x < 64 else -24))
    elif kind == "removed":
        scene = scene.remove_thing(last)
    elif kind == "hue":
        scene = scene.change_thing(last, hue=next(hue for hue in list_hues(thing.sticker) if hue != thing.hue))
    elif kind == "sticker":
        scene = scene.change_thing(last, sticker=next(n for n in NAMED if n != thing.sticker), hue="")
    elif kind == "ground":
        scene = replace(scene, ground=next(ground for ground in GROUNDS if ground != scene.ground))
    return blur(render(scene), 8) if kind == "blurred" else render(scene)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGES)
def test_the_oracle_notices_what_was_broken(kind):
    rng = np.random.default_rng(3)
    whole = scenes(32, 4)
    if kind == "hue":
        whole = [scene.change_thing(-1, sticker="apple", hue="") for scene in whole]
    noticed = [not agrees(scene, read_scene(damage(scene, kind, rng))) for scene in whole]
    assert np.mean(noticed) >= 0.99


def test_the_oracle_says_what_is_in_front():
    fox, cat = Thing("fox", 54, 64), Thing("cat", 80, 70)
    for things in ((fox, cat), (cat, fox)):
        picture = render(Scene("beach", 60, 3, things))
        assert is_behind(picture.astype(float), *things) and not is_behind(picture.astype(float), *things[::-1])
        assert [thing.sticker for thing in read_scene(picture).scene.things] == [thing.sticker for thing in things]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_oracle_sorts_a_row_of_three_whose_ends_do_not_touch(order):
    row = (Thing("fox", 34, 64), Thing("cat", 64, 66), Thing("pizza", 94, 64))
    shared = [(draw_thing_mask(one) & draw_thing_mask(other)).sum() for one, other in combinations(row, 2)]
    assert shared[0] >= MIN_OVERLAP and shared[2] >= MIN_OVERLAP and shared[1] == 0
    picture = render(Scene("beach", 60, 3, row)).astype(float)
    assert [row.index(thing) for thing in sort_by_depth(picture, [row[i] for i in order])] == [0, 1, 2]


def test_masks_are_where_a_thing_changes_the_picture():
    for scene in scenes(20, 5):
        empty = draw_ground(scene.ground, scene.horizon, scene.seed)
        changed = (render(scene) != empty).any(-1)
        outside = ~np.logical_or.reduce([draw_thing_mask(thing) for thing in scene.things])
        assert (changed & outside).sum() < 0.1 * outside.sum()  # half-covered edges only
        assert np.sum(find_visible_masks(scene), 0).max() <= 1


@pytest.mark.parametrize("task", QUESTION_MAKERS)
def test_questions_are_drawn_again_by_their_seed(task):
    for a, b in zip(make_questions(task, 4, 7), make_questions(task, 4, 7), strict=True):
        assert a.example.prompt == b.example.prompt and a.scene == b.scene
        assert (a.example.source == b.example.source).all() and (a.example.target == b.example.target).all()


@pytest.mark.slow
@pytest.mark.parametrize("task", QUESTION_MAKERS)
def test_true_answers_score_full_and_unanswered_ones_do_not(task):
    best = {"outside": 0, "rest": 0, "wrong": 0}
    true, unanswered = [], []
    for question in make_questions(task, 40, 3, unseen=True):
        true.append(SCORERS[task](question, question.example.target))
        unanswered.append(SCORERS[task](question, question.example.source))
    for name in {name for score in true for name in score}:
        mean = np.mean([score[name] for score in true if name in score])
        assert mean == 0 if name in best else mean >= 0.97
    measures = {
        "inpaint": ["hit"],
        "ground": ["iou"],
        "control": ["canny", "depth", "hed", "lineart", "seg"],
        "subject": ["kept"],
        "edit": ["done"],
    }
    assert np.mean([score[name] for score in unanswered for name in measures[task] if name in score]) <= 0.05


def test_the_true_answer_scores_full_where_the_thing_has_a_colour_of_its_own():
    questions = make_questions("ground", 150, 0)
    assert any(question.item is not None and question.scene.things[question.item].hue for question in questions)
    for question in questions:
        assert SCORERS["ground"](question, question.example.target)["iou"] >= 0.95, question.example.prompt


def test_depth_asks_for_the_order_of_things_that_share_pixels_alone():
    beside, under, over = Thing("car", 32, 32, "small"), Thing("pizza", 80, 80), Thing("fox", 96, 96)
    wanted = Scene("beach", 60, 3, (beside, under, over))

    def compare(*things: Thing) -> float:
        return compare_depth(replace(wanted, things=things), wanted)

    def count(*things: Thing) -> int:
        return np.logical_or.reduce([draw_thing_mask(thing) for thing in things]).sum()

    shared = (draw_thing_mask(under) & draw_thing_mask(over)).sum()
    assert shared and compare(beside, under, over) == compare(under, over, beside) == 1
    assert compare(over, under, beside) == pytest.approx(1 - shared / count(*wanted.things))
    assert compare(beside, under) == pytest.approx(1 - find_visible_masks(wanted)[2].sum() / count(*wanted.things))
    strange = replace(beside, sticker="dog")
    missed = count(beside, strange) / count(*wanted.things, strange)
    assert compare(strange, under, over) == pytest.approx(1 - missed)


def test_a_map_is_not_followed_by_the_bare_ground():
    for question in make_questions("control", 60, 4):
        if question.example.kind in ("depth", "seg"):
            (score,) = SCORERS["control"](question, render(replace(question.scene, things=()))).values()
            assert score <= 0.05, question.example.kind


@pytest.mark.parametrize("size", SIZES)
def test_the_next_position_is_another_one(size):
    first, second = CENTRES[1:3]
    assert not is_at(Thing("fox", first, 24, size), Thing("fox", second, 24, size))
    assert is_at(Thing("fox", first + 9, 24, size), Thing("fox", first, 24, size))


def test_a_ball_is_no_balloon():
    scene = Scene("beach", 60, 3, (Thing("ball", 30, 64), Thing("balloon", 96, 64)))
    prompt, picture = "Draw a box in red around one balloon.", render(scene)
    question = Question(Example("", "ground", prompt, picture, picture, "instance"), scene)
    (asked,) = list_asked(question)
    assert (asked == find_visible_masks(scene)[1]).all()


@pytest.mark.slow
def test_an_edit_of_the_wrong_thing_is_counted_apart():
    for question in make_questions("edit", 60, 5):
        if question.example.kind != "remove":
            continue
        others = [i for i, thing in enumerate(question.before.things) if thing.is_named and i != question.item]
        picture = render(question.before.remove_thing(others[0]))
        score = SCORERS["edit"](question, picture)
        assert score["done"] == 0 and score["wrong"] == 1


@pytest.mark.slow
def test_no_edit_is_done_by_removing_everything():
    for question in make_questions("edit", 40, 6):
        score = SCORERS["edit"](question, render(replace(question.scene, things=())))
        assert score["done"] == 0 and score.get("wrong", 1) == 1


@pytest.mark.parametrize(
    "x, y, is_there", [(44, 60, True), (51, 60, True), (53, 60, False), (44, 83, True), (44, 84, False)]
)
def test_a_thing_may_stand_a_little_outside_of_its_place(x, y, is_there):
    """Left of x = 48.64, between y = 48.64 and 79.36."""
    assert is_in_place(Thing("fox", x, y), "left") == is_there


def test_subjects_of_an_evaluation_are_never_in_training():
    held = set(list_stickers()["held out"])
    for task in QUESTION_MAKERS:
        for question in make_questions(task, 20, 1):
            shown = {thing.sticker for scene in (question.scene, question.before) if scene for thing in scene.things}
            assert not shown & held
    for question in make_questions("subject", 20, 1, unseen=True):
        assert question.scene.things[0].sticker in held and len(set(question.candidates)) == 64
        assert question.scene.things[0].sticker in question.candidates


def test_a_subject_keeps_its_size_and_goes_from_a_corner_to_where_words_say_exactly():
    positions = {name_place(x, y): (x, y) for x in ONE_A_PLACE for y in ONE_A_PLACE}
    assert set(positions) == set(PLACES) and len(ONE_A_PLACE) ** 2 == len(PLACES)
    for question in make_questions("subject", 40, 3):
        shown, wanted = question.before.things, question.scene.things[0]
        assert (
            positions[wanted.place] == (wanted.x, wanted.y)
            and f", now {say_where(wanted)}, " in question.example.prompt
        )
        assert 1 <= len(shown) <= 3 and {(thing.x, thing.y) for thing in shown} <= set(CORNERS)
        assert len({(thing.x, thing.y) for thing in shown}) == len(shown)
        assert [thing.size for thing in shown if thing.sticker == wanted.sticker] == [wanted.size]


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_leaves_the_rest(kind):
    rng = np.random.default_rng(6)
    for _ in range(10):
        before, edit = draw_edit(rng, list_stickers()["pool"], kind)
        assert sum(thing.is_named for thing in before.things) >= 2  # the right one has to be found
        kept = [thing for thing in before.things if thing in edit.after.things]
        assert len(kept) >= len(before.things) - 1 and edit.after != before


def test_what_is_put_beside_a_thing_stands_in_its_row_or_column():
    """So that the words say where it is to be found."""
    rng, steps = np.random.default_rng(7), {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
    for _ in range(60):
        before, edit = draw_edit(rng, list_stickers()["pool"], "add")
        new, (across, down) = edit.after.things[edit.item], next(steps[side] for side in steps if side in edit.prompt)
        away = [((new.x - other.x) * across + (new.y - other.y) * down, other) for other in before.things]
        assert any(far > 0 and (new.y == other.y if across else new.x == other.x) for far, other in away)


def test_references_fit_one_thing_only():
    left, right = Thing("fox", 30, 64), Thing("fox", 96, 64)
    assert "the left fox" in list_references((left, right), 0) and "the right fox" in list_references((left, right), 1)
    assert "the fox" not in list_references((left, right), 0)
    assert "the animal" in list_references((left, Thing("pizza", 96, 64)), 0)


def test_control_shows_every_kind_of_map_and_asks_for_no_look_that_neither_map_nor_words_tell():
    questions = make_questions("control", 60, 2)
    assert {question.example.kind for question in questions} == set(MAP_KINDS)
    shown = {(question.example.kind, thing.is_named) for question in questions for thing in question.scene.things}
    assert {kind for kind, is_named in shown if not is_named} == {"canny", "hed", "lineart"}


def test_a_licence_lies_beside_the_pictures():
    folder = pack.ROOT / "training" / "world" / "pictures"
    assert "Apache License" in (folder / "LICENSE.txt").read_text() and "Noto" in (folder / "NOTICE.txt").read_text()
