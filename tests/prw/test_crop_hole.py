"""Windows round holes: where they lie, what is cut, and that all of it goes back, against plain loops."""

import numpy as np
import pytest
import torch
from cologen.prw.crop_hole import (
    Stitch,
    Window,
    cut_windows,
    draw_preview,
    plan_windows,
    stitch_windows,
)


def holes(size, *boxes):
    """A hole a box: rows from, to, columns from, to."""
    found = torch.zeros(len(boxes), *size)
    for hole, (top, bottom, left, right) in zip(found, boxes):
        hole[top:bottom, left:right] = 1
    return found


PLANS = [
    ((1500, 2000), (700, 900, 900, 1300), 1.5, 1024),
    ((1500, 2000), (0, 30, 1980, 2000), 2.0, 1024),  # in a corner, small
    ((333, 777), (100, 333, 0, 500), 1.0, 512),
    ((333, 777), (0, 333, 0, 777), 1.5, 512),  # all of it
    ((4000, 300), (10, 3990, 140, 150), 1.2, 1024),  # a crack
    ((50, 70), (20, 30, 20, 40), 3.0, 1024),  # smaller than any window
    ((64, 64), (33, 60, 33, 62), 2.21, 64),
    ((1, 1), (0, 1, 0, 1), 1.0, 16),
]


@pytest.mark.parametrize("size, box, context, longest", PLANS)
def test_a_window_shows_its_hole_and_surroundings_in_a_shape_that_can_be_drawn(size, box, context, longest):
    (window,), crop = plan_windows(holes(size, box), context, longest)
    assert max(crop) == longest and not (crop[0] % 16 or crop[1] % 16)
    assert window.top <= box[0] and box[1] <= window.top + window.height
    assert window.left <= box[2] and box[3] <= window.left + window.width
    scale = max(window.height, window.width) / longest
    for begin, side, drawn, limit, needed in (
        (window.top, window.height, crop[0], size[0], box[1] - box[0]),
        (window.left, window.width, crop[1], size[1], box[3] - box[2]),
    ):
        assert abs(side - drawn * scale) <= 0.5, "the shape is kept, to the pixel"
        assert side > min(needed * context, limit) - 16 * scale - 1
        if side <= limit:
            assert 0 <= begin and begin + side <= limit, "shifted, and nothing is invented"
        else:
            assert begin == (limit - side) // 2 and side - limit <= 16 * scale


def test_a_window_is_as_many_times_the_hole_as_asked_for():
    (window,), crop = plan_windows(holes((3000, 3000), (1000, 1400, 1200, 1520)), 2.0, 1024)
    assert (window.height, window.width, *crop) == (800, 650, 1024, 832), "640 wide, and what makes it a multiple of 16"
    assert window.top == 800 and abs(window.left + window.width / 2 - 1360) <= 1


def test_a_strip_gets_surroundings_and_a_speck_is_not_enlarged_without_end():
    (strip,), _ = plan_windows(holes((3000, 3000), (1000, 1010, 500, 1500)), 1.5, 1024)
    assert (strip.width, strip.height) == (1500, 750)
    (speck,), _ = plan_windows(holes((3000, 3000), (1000, 1008, 500, 508)), 1.5, 1024)
    assert (speck.width, speck.height) == (256, 256)


def test_windows_of_a_batch_have_one_size_and_places_of_their_own():
    found, crop = plan_windows(holes((500, 800), (10, 60, 20, 40), (300, 340, 500, 700)), 1.2, 256)
    (alone,), same = plan_windows(holes((500, 800), (10, 60, 20, 220)), 1.2, 256)
    assert {(window.height, window.width) for window in found} == {(alone.height, alone.width)} and crop == same
    assert found[0].top == 0 and found[0].left == 0 and abs(found[1].left + found[1].width / 2 - 600) <= 1


def test_empty_masks_are_a_sentence():
    with pytest.raises(ValueError, match="^The mask is empty, expected some white"):
        plan_windows(torch.zeros(1, 8, 8), 1.0, 64)
    with pytest.raises(ValueError, match="^Mask 2 of 2 is empty, expected some white: paint what shall be new in the"):
        plan_windows(holes((8, 8), (1, 2, 1, 2), (0, 0, 0, 0)), 1.0, 64)


WINDOWS = (Window(3, -4, 9, 20), Window(-2, 1, 20, 10))


def test_what_is_cut_is_the_picture_s_and_its_edge_goes_on():
    image, found = torch.rand(2, 16, 12, 3), []
    for picture, window in zip(image.numpy(), WINDOWS):
        cut = np.zeros((window.height, window.width, 3), np.float32)
        for y in range(window.height):
            for x in range(window.width):
                cut[y, x] = picture[min(max(window.top + y, 0), 15), min(max(window.left + x, 0), 11)]
        found.append(cut)
    for window, expected, picture in zip(WINDOWS, found, image):
        assert np.array_equal(cut_windows(picture[None], [window])[0].numpy(), expected)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("windows", [(Window(3, -4, 9, 20), Window(5, 0, 9, 20)), (Window(0, 2, 16, 8),) * 2])
def test_what_was_drawn_goes_back_by_its_weight_and_nowhere_else(windows, channels):
    """Four drawn pictures for two originals: the third is the first's again."""
    size = windows[0].height, windows[0].width
    image, drawn, weight = torch.rand(2, 16, 12, channels), torch.rand(4, *size, 3), torch.rand(2, 16, 12)
    weight = torch.where(weight < 0.3, 0.0, torch.where(weight > 0.7, 1.0, weight))
    stitch = Stitch(image, weight, 0, windows, size)
    found = stitch_windows(stitch, drawn, weight).numpy()
    for k in range(4):
        i, window = k % 2, windows[k % 2]
        for y in range(16):
            for x in range(12):
                row, column, by = y - window.top, x - window.left, float(weight[i, y, x])
                if by == 0 or not (0 <= row < size[0] and 0 <= column < size[1]):
                    assert np.array_equal(found[k, y, x], image[i, y, x].numpy()), "to the bit"
                    continue
                new = np.append(drawn[k, row, column].numpy(), 1)[:channels]
                if by == 1:
                    assert np.array_equal(found[k, y, x], new.astype(np.float32)), "to the bit"
                assert np.allclose(found[k, y, x], (1 - by) * image[i, y, x].numpy() + by * new, atol=1e-6)


def test_pictures_that_are_not_the_crops_are_a_sentence():
    stitch = Stitch(torch.rand(2, 16, 16, 3), torch.ones(2, 16, 16), 0, (Window(0, 0, 8, 16),) * 2, (64, 128))
    with pytest.raises(ValueError, match="There are 3 drawn pictures for 2 crops, expected a multiple"):
        stitch_windows(stitch, torch.rand(3, 64, 128, 3), stitch.hole)
    with pytest.raises(
        ValueError, match="has 128 x 128 pixels, expected the shape of the crop, 128 x 64: connect what"
    ):
        stitch_windows(stitch, torch.rand(2, 128, 128, 3), stitch.hole)


def test_a_preview_marks_the_hole_and_the_window():
    image, hole = torch.zeros(1, 64, 64, 3), holes((64, 64), (20, 30, 20, 30))
    found = draw_preview(image, hole, [Window(10, 12, 30, 32)])[0]
    assert (
        torch.allclose(found[25, 25], torch.tensor([0.5, 0.0, 0.1])) and not found[0].any() and not found[15, 15].any()
    )
    for y, x in ((10, 20), (39, 20), (20, 12), (20, 43)):
        assert torch.equal(found[y, x], torch.tensor([1.0, 1.0, 0.0]))
    assert (
        not image.any()
        and max(draw_preview(torch.zeros(1, 2000, 4000, 3), torch.zeros(1, 2000, 4000), []).shape) == 1024
    )
