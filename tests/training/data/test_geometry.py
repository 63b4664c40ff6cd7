"""Views: what belongs together stays together under every crop, flip and size."""

import numpy as np
import pytest
from cologen.training.data.box import Box
from cologen.training.data.geometry import (
    MIN_CROP,
    MIN_VISIBLE,
    Crop,
    centre_crop,
    crop_example,
    crop_pair,
    crop_sample,
    crop_triple,
    draw_crop,
    mirror_text,
    whole_crop,
)
from cologen.training.data.sample import Example, Pair, Sample, Thing, Triple
from hypothesis import given, settings
from hypothesis import strategies as st

seeds = st.integers(0, 2**32 - 1)
sides = st.integers(8, 120)
sizes = st.tuples(sides, sides)
SWAPPED = [
    ("the circle on the left", "the circle on the right"),
    ("Left of RIGHT, upper-left", "Right of LEFT, upper-right"),
    ("the leftmost cup; Rightmost!", "the rightmost cup; Leftmost!"),
    ("bright cleft, leftover, lEFT, left_hand", "bright cleft, leftover, lEFT, left_hand"),
    ("from left to right", "from right to left"),
    ("", ""),
]


@st.composite
def views(draw, size=None):
    """Any crop, flip and size, distortion included; and the size of the picture."""
    height, width = size or draw(sizes)
    y0, x0 = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    y1, x1 = draw(st.integers(y0 + 1, height)), draw(st.integers(x0 + 1, width))
    return Crop(Box(x0, y0, x1, y1), draw(st.booleans()), draw(sizes)), (height, width)


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def rectangle(size, box):
    mask = np.zeros(size, bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def origin(view, row, column):
    """Where in the picture the centre of an output pixel lies."""
    height, width = view.size
    column = width - 1 - column if view.flip else column
    y = view.box.y0 + (row + 0.5) * (view.box.y1 - view.box.y0) / height
    x = view.box.x0 + (column + 0.5) * (view.box.x1 - view.box.x0) / width
    return y, x


@settings(max_examples=60, deadline=None)
@given(views())
def test_pixels_that_know_their_place_come_from_where_the_view_looks(drawn):
    view, size = drawn
    ys, xs = np.mgrid[: size[0], : size[1]]
    seen = view.picture(np.stack([xs, ys, 0 * xs], -1).astype(np.uint8))
    assert seen.shape == (*view.size, 3)
    rows, columns = np.mgrid[: view.size[0], : view.size[1]]
    y, x = origin(view, rows, columns)
    box = view.box
    reach_y = 2.5 * max(1, (box.y1 - box.y0) / view.size[0])
    reach_x = 2.5 * max(1, (box.x1 - box.x0) / view.size[1])
    far_x = (x > box.x0 + reach_x) & (x < box.x1 - reach_x)  # further from the border than the filter reaches
    far_y = (y > box.y0 + reach_y) & (y < box.y1 - reach_y)
    assert np.abs(seen[..., 0] - (x - 0.5))[far_x].max(initial=0) < 0.6
    assert np.abs(seen[..., 1] - (y - 0.5))[far_y].max(initial=0) < 0.6


@settings(max_examples=30, deadline=None)
@given(views(), seeds)
def test_a_mask_is_the_nearest_pixel_of_a_plain_loop(drawn, seed):
    view, size = drawn
    mask = np.random.default_rng(seed).random(size) < 0.5
    seen = view.mask(mask)
    for row in range(view.size[0]):
        for column in range(view.size[1]):
            y, x = origin(view, row, column)
            if min(abs(y - round(y)), abs(x - round(x))) > 1e-6:  # on the edge of two pixels either is nearest
                assert seen[row, column] == mask[int(y), int(x)]


@settings(max_examples=40, deadline=None)
@given(views(), seeds)
def test_mirrored_is_the_mirror_image_of_not_mirrored(drawn, seed):
    view, size = drawn
    straight, mirrored = (Crop(view.box, flip, view.size) for flip in (False, True))
    pixels = noise(size, seed)
    for look in ("picture", "labels"):
        assert np.array_equal(getattr(mirrored, look)(pixels), getattr(straight, look)(pixels)[:, ::-1])
    mask = pixels[..., 0] < 128
    assert np.array_equal(mirrored.mask(mask), straight.mask(mask)[:, ::-1])


@settings(max_examples=40, deadline=None)
@given(views(), seeds)
def test_source_and_target_agree_after_any_view(drawn, seed):
    """A source that is the negative of its target stays the negative."""
    view, size = drawn
    target = noise(size, seed)
    seen = crop_example(view, Example("a", "edit", "look left", 255 - target, target, "kind"))
    assert np.abs(255 - seen.source.astype(int) - seen.target).max() <= 3  # rounded twice
    assert np.array_equal(seen.target, view.picture(target))
    assert seen.prompt == ("look right" if view.flip else "look left")
    assert (seen.id, seen.task, seen.kind) == ("a", "edit", "kind")


@settings(max_examples=60, deadline=None)
@given(views(size=(40, 50)), st.integers(0, 40), st.integers(0, 30))
def test_a_thing_is_seen_where_its_pixels_are_seen(drawn, x, y):
    view, size = drawn
    box = view.box
    view = Crop(box, view.flip, (box.y1 - box.y0, box.x1 - box.x0))  # no resizing: plain arithmetic
    mask = rectangle(size, (x, y, x + 10, y + 10))
    sample = Sample("a", mask[..., None] * np.full(3, 255, np.uint8), "left", (Thing("left one", "cup", mask),))
    seen = crop_sample(view, sample)
    x0, x1 = max(x, box.x0) - box.x0, min(x + 10, box.x1) - box.x0
    y0, y1 = max(y, box.y0) - box.y0, min(y + 10, box.y1) - box.y0
    if max(0, x1 - x0) * max(0, y1 - y0) < MIN_VISIBLE * 100:
        assert seen.things == ()
        return
    (thing,) = seen.things
    if view.flip:
        x0, x1 = view.size[1] - x1, view.size[1] - x0
    assert thing.box == (x0, y0, x1, y1)
    assert np.array_equal(thing.mask, seen.picture[..., 0] > 127)
    assert (thing.name, seen.caption) == (("right one", "right") if view.flip else ("left one", "left"))
    assert thing.kind == "cup" and seen.id == "a"


@settings(max_examples=40, deadline=None)
@given(st.booleans(), st.integers(2, 4))
def test_resized_things_grow_with_their_picture(flip, scale):
    size, box = (20, 30), (4, 5, 12, 16)
    mask = rectangle(size, box)
    view = Crop(Box(0, 0, 30, 20), flip, (20 * scale, 30 * scale))
    (thing,) = crop_sample(view, Sample("a", noise(size), "", (Thing("a", "b", mask),))).things
    grown = np.kron(mask, np.ones((scale, scale), bool))
    assert np.array_equal(thing.mask, grown[:, ::-1] if flip else grown)


def test_half_of_a_thing_is_enough_and_a_pixel_less_is_not():
    mask = rectangle((20, 20), (0, 0, 10, 10))
    names = [[], ["it"]]
    for left in (4, 5, 6):
        seen = crop_sample(
            Crop(Box(10 - left, 0, 20, 20), False, (20, 20)), Sample("a", noise((20, 20)), "", (Thing("it", "", mask),))
        )
        assert [thing.name for thing in seen.things] == names[left >= 5]
    thin = rectangle((20, 20), (3, 0, 4, 20))
    shrunk = crop_sample(whole_crop((20, 20), (2, 2)), Sample("a", noise((20, 20)), "", (Thing("it", "", thin),)))
    assert shrunk.things == ()


def test_colours_of_a_segmentation_are_not_mixed_and_a_depth_map_is():
    edge = np.where(np.arange(40)[None, :, None] < 20, 0, 200).astype(np.uint8) * np.ones((40, 1, 3), np.uint8)
    sample = Sample("a", edge, maps={"seg": edge, "depth": edge})
    view = Crop(Box(3, 3, 36, 36), True, (50, 50))
    seen = crop_sample(view, sample)
    assert set(np.unique(seen.maps["seg"])) == {0, 200} and len(np.unique(seen.maps["depth"])) > 2
    assert np.array_equal(seen.maps["depth"], seen.picture)
    assert np.abs(seen.maps["seg"].astype(int) - seen.picture).mean() < 5


@pytest.mark.parametrize("text, mirrored", SWAPPED)
def test_words_for_a_side_change_it(text, mirrored):
    assert mirror_text(text) == mirrored


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["left", "Right", "LEFT", "leftmost", "lEFT", " ", "-", "x", "\n", "_", "é"])).map("".join)
)
def test_mirrored_twice_a_text_is_itself(text):
    assert mirror_text(mirror_text(text)) == text


def test_two_pictures_of_a_pair_keep_their_own_views_and_words():
    first, second = noise((20, 30), 1), noise((25, 20), 2)
    one, two = Crop(Box(5, 0, 25, 20), True, (20, 20)), Crop(Box(0, 0, 20, 20), False, (20, 20))
    seen = crop_pair(one, two, Pair("a", first, second, "to the left", "to the left"))
    assert np.array_equal(seen.first, first[:, 5:25][:, ::-1]) and seen.first_caption == "to the right"
    assert np.array_equal(seen.second, second[:20, :20]) and seen.second_caption == "to the left"


def test_before_and_after_share_a_view():
    before, after = noise((20, 30), 1), noise((20, 30), 2)
    view = Crop(Box(2, 3, 12, 13), True, (10, 10))
    seen = crop_triple(view, Triple("a", before, after, "Remove the Left cup"))
    for got, given_ in ((seen.before, before), (seen.after, after)):
        assert np.array_equal(got, given_[3:13, 2:12][:, ::-1])
    assert seen.instruction == "Remove the Right cup"
    with pytest.raises(ValueError, match="b: the source is 30 x 20, the target 20 x 20"):
        crop_triple(view, Triple("b", before, after[:, :20], ""))


def test_an_example_may_give_its_source_a_view_of_its_own():
    source, target = noise((30, 30), 1), noise((20, 20), 2)
    view, other = Crop(Box(0, 0, 20, 20), False, (20, 20)), Crop(Box(10, 10, 30, 30), True, (20, 20))
    seen = crop_example(view, Example("a", "subject", "on the left", source, target), other)
    assert np.array_equal(seen.source, source[10:, 10:][:, ::-1]) and np.array_equal(seen.target, target)
    assert seen.prompt == "on the left"
    with pytest.raises(ValueError, match="the source is 30 x 30, the target 20 x 20"):
        crop_example(view, Example("a", "edit", "", source, target))


@settings(max_examples=100, deadline=None)
@given(seeds, sizes, sizes)
def test_drawn_views_keep_within_the_picture_and_its_aspect(seed, size, out):
    view = draw_crop(np.random.default_rng(seed), size, out)
    x0, y0, x1, y1 = view.box
    assert 0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0] and view.size == out
    height, width = y1 - y0, x1 - x0
    scale = min(size[0] / out[0], size[1] / out[1])
    share_y, share_x = height / (out[0] * scale), width / (out[1] * scale)
    assert MIN_CROP * out[0] * scale - 1 <= height <= out[0] * scale + 1
    assert abs(share_y - share_x) <= 1 / (out[0] * scale) + 1 / (out[1] * scale) + 1e-9
    assert view == draw_crop(np.random.default_rng(seed), size, out)


def test_drawn_views_reach_everywhere_and_half_are_mirrored():
    rng = np.random.default_rng(0)
    drawn = [draw_crop(rng, (60, 40), (32, 32)) for _ in range(400)]
    assert {view.box.x0 for view in drawn} == set(range(13)) and min(view.box.y0 for view in drawn) == 0
    assert max(view.box.y1 for view in drawn) == 60 and max(view.box.x1 for view in drawn) == 40
    assert abs(np.mean([view.flip for view in drawn]) - 0.5) < 0.1
    assert not any(draw_crop(rng, (60, 40), (32, 32), flip=0).flip for _ in range(50))
    whole = {draw_crop(rng, (60, 40), (32, 32), min_share=1).box[::2] for _ in range(50)}
    assert whole == {(0, 40)}


def test_the_centre_is_the_middle_and_the_whole_is_all():
    picture = noise((20, 30))
    assert np.array_equal(centre_crop((20, 30), (20, 20)).picture(picture), picture[:, 5:25])
    assert np.array_equal(centre_crop((30, 20), (10, 10)).labels(np.swapaxes(picture, 0, 1)).shape, (10, 10, 3))
    assert centre_crop((30, 20), (10, 10)).box == Box(0, 5, 20, 25)
    assert np.array_equal(whole_crop((20, 30), (20, 30)).picture(picture), picture)


def test_a_view_of_another_size_of_picture_is_refused():
    view = Crop(Box(0, 0, 21, 20), False, (8, 8))
    with pytest.raises(ValueError, match="The picture is 20 x 20, the view takes"):
        view.picture(noise((20, 20)))


@pytest.mark.parametrize("size", [(1, 8000), (8000, 1), (1, 1)])
def test_a_picture_of_one_row_is_cropped_as_any(size):
    picture, mask = np.zeros((*size, 3), np.uint8), np.ones(size, bool)
    sample = Sample("row", picture, "caption", (Thing("the box", "box", mask),), {"depth": picture})
    for crop in (
        draw_crop(np.random.default_rng(0), size, (64, 32)),
        centre_crop(size, (64, 32)),
        whole_crop(size, (64, 32)),
    ):
        found = crop_sample(crop, sample)
        assert found.picture.shape == (64, 32, 3) and found.maps["depth"].shape == (64, 32, 3)
        assert all(thing.mask.shape == (64, 32) for thing in found.things)
