"""Pose maps: OpenPose's points, limbs and hues by number, drawn pixel by pixel."""

import numpy as np
import pytest
from cologen.training.data.tasks.skeleton import COCO_POINTS, POINTS, draw_skeletons, name_points

SIZE = (96, 64)
NUMBERS = dict(
    nose=0,
    neck=1,
    right_shoulder=2,
    right_elbow=3,
    right_wrist=4,
    left_shoulder=5,
    left_elbow=6,
    left_wrist=7,
    right_hip=8,
)
NUMBERS |= dict(right_knee=9, right_ankle=10, left_hip=11, left_knee=12, left_ankle=13, right_eye=14, left_eye=15)
NUMBERS |= dict(right_ear=16, left_ear=17)
PAIRS = [(1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)]
PAIRS += [(1, 0), (0, 14), (14, 16), (0, 15), (15, 17)]


def hue(number):
    """Number / 18 of the way round red, yellow, green, cyan, blue, magenta: a sixth raises or lowers one channel."""
    sixth, part = divmod(number * 255 // 3, 255)
    return [
        (255, part, 0),
        (255 - part, 255, 0),
        (0, 255, part),
        (0, 255 - part, 255),
        (part, 0, 255),
        (255, 0, 255 - part),
    ][sixth]


def person(seed=0, size=SIZE):
    """Seventeen sure points anywhere."""
    g = np.random.default_rng(seed)
    return g.uniform(0, 1, (17, 2)) * (size[1] - 1, size[0] - 1)


def colour_at(x, y, points, radius):
    """Naive: the last of the limbs and points of all persons that covers the pixel."""
    colour = (0, 0, 0)
    for named in points:
        for number, (start, end) in enumerate(PAIRS):
            if start in named and end in named:
                a, b = np.array(named[start]), np.array(named[end])
                unit, offset = (b - a) / np.linalg.norm(b - a), np.array([x, y]) - (a + b) / 2
                along, across = offset @ unit, offset @ (-unit[1], unit[0])
                if (along / (np.linalg.norm(b - a) / 2)) ** 2 + (across / radius) ** 2 <= 1:
                    colour = tuple(round(0.6 * channel) for channel in hue(number))
        for number, (a, b) in sorted(named.items()):
            if (x - a) ** 2 + (y - b) ** 2 <= radius**2:
                colour = hue(number)
    return colour


@pytest.mark.parametrize("size, radius, people", [((48, 32), 1, 2), ((300, 512 + 128), 4 * 300 / 512, 1)])
def test_every_pixel_is_as_the_naive_drawing_has_it(size, radius, people):
    named = [name_points(person(seed, size), [1] * 17, size) for seed in range(people)]
    numbered = [{NUMBERS[name.replace(" ", "_")]: point for name, point in one.items()} for one in named]
    found = draw_skeletons(named, size)
    assert found.shape == (*size, 3) and found.dtype == np.uint8
    step = 1 if size[0] == 48 else 7
    for y in range(0, size[0], step):
        for x in range(0, size[1], step):
            assert tuple(found[y, x]) == colour_at(x, y, numbered, radius), (x, y)


def test_ends_of_a_limb():
    """Of an arm from (10, 20) to (40, 20), 512 pixels wide: half-width 4, points over the limb's ends, nothing beyond."""
    points = {"right shoulder": (10.0, 20.0), "right elbow": (40.0, 20.0)}
    found = draw_skeletons([points], (512, 512))
    limb, shoulder, elbow = (153, 102, 0), hue(2), hue(3)
    assert limb == tuple(round(0.6 * channel) for channel in shoulder) and elbow == (255, 255, 0)
    row = [tuple(pixel) for pixel in found[20, :50].tolist()]
    assert row == [(0, 0, 0)] * 6 + [shoulder] * 9 + [limb] * 21 + [elbow] * 9 + [(0, 0, 0)] * 5
    column = [tuple(pixel) for pixel in found[10:31, 25].tolist()]
    assert column == [(0, 0, 0)] * 6 + [limb] * 9 + [(0, 0, 0)] * 6
    assert not found[:, 50:].any() and not found[30:].any()


def test_each_point_has_its_place_name_and_colour():
    for name, number in NUMBERS.items():
        assert POINTS[number] == name.replace("_", " ")
        found = draw_skeletons([{POINTS[number]: (20.0, 30.0)}], SIZE)
        assert tuple(found[30, 20]) == hue(number) and np.count_nonzero(found.any(-1)) == 5


def test_the_neck_is_between_the_shoulders():
    points = person()
    named = name_points(points, [1] * 17, SIZE)
    assert named["neck"] == pytest.approx(points[5:7].mean(0)) and len(named) == 18
    assert all(named[name] == tuple(point) for name, point in zip(COCO_POINTS, points, strict=True))
    one_sided = name_points(points, [float(i != 5) for i in range(17)], SIZE)
    assert set(named) - set(one_sided) == {"left shoulder", "neck"}


def test_points_that_are_unsure_or_outside_are_left_out():
    points, scores = person(), np.full(17, 0.3)
    points[0], points[1], points[2] = (-1, 5), (5, SIZE[0]), (np.nan, 5)
    points[3] = (1e30, 1e30)
    scores[9], scores[10] = 0.29, np.nan
    gone = {"nose", "left eye", "right eye", "left ear", "left wrist", "right wrist"}
    assert set(POINTS) - set(name_points(points, scores, SIZE)) == gone


def test_limbs_without_length_and_tiny_pictures():
    assert draw_skeletons([{"nose": (0.0, 0.0), "neck": (0.0, 0.0)}], (1, 1)).any()
    assert not draw_skeletons([], (3, 2)).any() and not draw_skeletons([{}], (3, 2)).any()
