"""Holes for inpainting: kinds, overlap, shape and scale."""

import numpy as np
import pytest
from cologen.training.data.box import Box, find_box
from cologen.training.data.tasks.masks import (
    KINDS,
    bezier,
    compute_iou,
    draw_boxes,
    draw_hole,
    draw_irregular,
    draw_scene_hole,
    draw_strokes,
)
from hypothesis import given, settings
from hypothesis import strategies as st

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(64, 300), st.integers(64, 300))


def disc(size, y, x, radius):
    ys, xs = np.mgrid[: size[0], : size[1]]
    return (ys - y) ** 2 + (xs - x) ** 2 < radius**2


def test_kinds_come_in_the_papers_mixture():
    objects, n = [disc((64, 64), 20, 20, 9), disc((64, 64), 45, 40, 12)], 3000
    rng = np.random.default_rng(0)
    drawn = [draw_hole(rng, objects, (64, 64))[0] for _ in range(n)]
    for kind, share in KINDS.items():
        deviation = (share * (1 - share) / n) ** 0.5
        assert abs(drawn.count(kind) / n - share) < 4 * deviation


@settings(max_examples=60, deadline=None)
@given(seeds, sizes)
def test_a_random_hole_lies_on_no_object(seed, size):
    rng = np.random.default_rng(seed)
    objects = [disc(size, size[0] / 3, size[1] / 3, 12), disc(size, size[0] / 2, size[1] / 2, 25)]
    mask = draw_scene_hole(rng, objects, size)
    assert mask.shape == size and mask.any()
    for each in objects:
        assert np.sum(mask * each) / np.sum(np.maximum(mask, each)) <= 0.3


def test_an_object_that_cannot_be_missed_gets_the_least_overlap():
    everything = np.ones((64, 64), bool)
    mask = draw_scene_hole(np.random.default_rng(1), [everything], (64, 64))
    assert mask.any() and not mask.all()


@settings(max_examples=60, deadline=None)
@given(seeds, sizes)
def test_an_irregular_hole_covers_the_box_and_stays_within_its_growth(seed, size):
    rng = np.random.default_rng(seed)
    height, width = size
    box = Box(width // 4, height // 4, width // 2, height // 2)
    found = find_box(draw_irregular(rng, box, size))
    jitter = 5 * min(size) / 512 + 1
    assert found.x0 >= box.x0 - 0.2 * box.x0 - jitter and found.y0 >= box.y0 - 0.2 * box.y0 - jitter
    assert found.x1 <= box.x1 + 0.2 * (width - box.x1) + 1 + jitter
    assert found.y1 <= box.y1 + 0.2 * (height - box.y1) + 1 + jitter
    mask = draw_irregular(np.random.default_rng(seed), box, size)
    inside = round(jitter)
    assert mask[box.y0 + inside : box.y1 - inside, box.x0 + inside : box.x1 - inside].all()


def test_without_room_to_grow_the_hole_is_the_box():
    size = (128, 128)
    mask = draw_irregular(np.random.default_rng(3), Box(0, 0, 128, 128), size)
    assert mask.mean() > 0.9


@settings(max_examples=40, deadline=None)
@given(seeds, sizes)
def test_boxes_keep_their_margin_and_strokes_draw_something(seed, size):
    rng = np.random.default_rng(seed)
    mask, margin = draw_boxes(rng, size), round(10 * min(size) / 256)
    assert mask.any() and draw_strokes(rng, size).any()
    inner = mask[margin : size[0] - margin, margin : size[1] - margin]
    assert inner.sum() == mask.sum()


@pytest.mark.parametrize("draw", [draw_strokes, draw_boxes])
def test_holes_grow_with_the_picture(draw):
    """The share of the picture does not depend on its side."""
    shares = [np.mean([draw(np.random.default_rng(i), (side, side)).mean() for i in range(300)]) for side in (128, 512)]
    assert abs(shares[0] - shares[1]) < 0.05


def test_equal_seeds_draw_equal_holes():
    objects = [disc((96, 96), 40, 40, 15)]
    for seed in range(5):
        a, b = (draw_hole(np.random.default_rng(seed), objects, (96, 96)) for _ in range(2))
        assert a.kind == b.kind and np.array_equal(a.mask, b.mask)
    assert draw_hole(np.random.default_rng(0), [], (96, 96)).kind == "random"


def test_a_hole_names_the_object_that_made_it():
    objects = [disc((96, 96), 25, 25, 10), disc((96, 96), 70, 70, 15)]
    middles, seen = [(25, 25), (70, 70)], set()
    for seed in range(40):
        kind, mask, of = draw_hole(np.random.default_rng(seed), objects, (96, 96))
        seen.add((kind, of))
        if of is not None:
            assert mask[middles[of]] and not mask[middles[1 - of]]
    assert seen == {("random", None), *((kind, of) for kind in ("object", "irregular") for of in (0, 1))}


def test_an_object_hole_is_the_object_and_a_copy():
    object_ = disc((64, 64), 30, 30, 10)
    holes = [draw_hole(np.random.default_rng(i), [object_], (64, 64)) for i in range(20)]
    (exact, *_) = [each.mask for each in holes if each.kind == "object"]
    assert np.array_equal(exact, object_)
    exact[:] = False
    assert object_.any()


def test_bezier_meets_its_ends_and_half_way_to_its_control_point():
    points = np.array([[0.0, 0.0], [4.0, 8.0], [8.0, 0.0]])
    assert bezier(points, 0).tolist() == [0, 0] and bezier(points, 1).tolist() == [8, 0]
    assert bezier(points, 0.5).tolist() == [4, 4]


def test_iou_and_box_by_hand():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[0:2, 0:2] = b[1:3, 0:2] = True
    assert compute_iou(a, b) == 2 / 6 and compute_iou(a & ~a, b & ~b) == 0
    assert find_box(b) == Box(0, 1, 2, 3)
