"""Charts put values where their axes say."""

import math

import numpy as np
import pytest
from cologen.training.monitor.plots import LEFT, ROW, SIZE, TOP, Curve, draw_chart, format_number, place_ticks
from cologen.training.monitor.route_map import COLOURS


def painted(picture, colour, box=None):
    """Where a curve's colour is, as rows and columns."""
    pixels = np.asarray(picture if box is None else picture.crop(box)).astype(int)
    return np.argwhere(np.abs(pixels - np.array(colour)).sum(-1) < 60)


PLOT = (LEFT + 1, TOP - 4, *SIZE)
"""Where curves are, without the legend."""


def test_a_chart_puts_values_where_its_axes_say():
    rising = painted(draw_chart("t", {"a": Curve([0, 100], [0.0, 1.0])}), COLOURS[0], PLOT)
    first, last = rising[rising[:, 1] < 20], rising[rising[:, 1] > 480 - LEFT]
    assert first[:, 0].min() > 200 > last[:, 0].max()
    level = painted(draw_chart("t", {"a": Curve([0, 1, 2], [0.3] * 3)}), COLOURS[0], PLOT)
    assert np.ptp(level[:, 0]) < 9 and np.ptp(level[:, 1]) > 450
    dot = painted(draw_chart("t", {"a": Curve([5], [0.3])}), COLOURS[0], PLOT)
    assert 0 < len(dot) < 100 and np.ptp(dot[:, 0]) < 12


def test_a_chart_leaves_out_what_is_no_number_and_shows_every_name():
    nan = float("nan")
    clean = draw_chart("t", {"a": Curve([0, 2, 3], [1.0, 2.0, 1.5])})
    assert draw_chart("t", {"a": Curve([0, 1, 2, 2.5, 3], [1.0, nan, 2.0, math.inf, 1.5])}) == clean
    nothing = draw_chart("t", {})
    assert nothing.size == SIZE and not len(painted(nothing, COLOURS[0]))
    both = draw_chart("t", {"a": Curve([1, 2], [nan, nan]), "b": Curve([1, 2], [3.0, 4.0])})
    assert len(painted(both, COLOURS[0], (0, 0, SIZE[0], TOP - 4))) > 50  # in the legend
    assert not len(painted(both, COLOURS[0], PLOT)) and len(painted(both, COLOURS[1], PLOT)) > 400
    many = Curve(np.arange(10**5), np.ones(10**5))
    assert len(painted(draw_chart("t", {"a": many}, smooth=50), COLOURS[0], PLOT)) > 400


def test_every_name_is_in_the_legend_and_lines_begin_below_it():
    names = [f"a long name {i}" for i in range(len(COLOURS))]
    curves = {name: Curve([0, 1], [i / 10, i / 10]) for i, name in enumerate(names)}
    chart = draw_chart("t", curves, low=0, high=1)
    rows = {painted(chart, colour, (0, 0, SIZE[0], TOP + ROW))[:, 0].min() // ROW for colour in COLOURS}
    assert len(rows) == 2  # which is why lines begin lower
    highest = painted(draw_chart("t", dict.fromkeys(names, Curve([0, 1], [1.0, 1.0])), low=0, high=1), COLOURS[-1])
    assert abs(np.bincount(highest[:, 0]).argmax() - (TOP + ROW)) < 3


def test_names_of_marks_end_where_the_next_begins():
    """Those for which there is no room are left out; the others are as wide as they are alone."""

    def draw(**marks):
        return np.asarray(draw_chart("t", {"a": Curve([0, 100], [0.0, 0.0])}, low=0, high=1, marks=marks)).astype(int)

    crowded, roomy, unnamed = draw(first=0.0, middle=2.0, last=99.0), draw(middle=2.0), draw(**{" ": 2.0})
    lines = draw(**{" ": 0.0, "  ": 2.0, "   ": 99.0})
    assert (roomy != unnamed).any() and ((crowded != lines) == (roomy != unnamed)).all()


@pytest.mark.parametrize("low, high", [(0, 1), (2.30, 4.21), (-3e8, 1e7), (1e-9, 2e-9), (0.27, 0.33), (1, 60)])
def test_ticks_are_few_round_numbers_within(low, high):
    found = place_ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-6 * (high - low) <= value <= high + 1e-6 * (high - low) for value in found)
    steps = {f"{b - a:.3e}" for a, b in zip(found, found[1:])}
    assert len(steps) == 1 and steps.pop()[:5] in ("1.000", "2.000", "5.000")


def test_iterations_on_an_axis_are_whole():
    assert place_ticks(1, 5, 8, min_step=1) == [1, 2, 3, 4, 5] and place_ticks(4.5, 5.5, 8, min_step=1) == [5]


def test_numbers_on_axes_are_short():
    assert [format_number(value) for value in (0, 0.25, 1500, 20_000, 2.5e6, -3e8, 7e9)] == [
        "0", "0.25", "1500", "20k", "2.5M", "-300M", "7G",
    ]  # fmt: skip
