"""Line charts, drawn with Pillow."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .route_map import COLOURS, EMPTY, INK, PAPER, cut_words

SIZE, LEFT, TOP, RIGHT, BOTTOM = (560, 360), 64, 72, 20, 54
"""In pixels: of a chart, and from its edges to its lines where the legend has one row. Small, so that words stay readable."""
TITLE, WORDS, ROW = 18, 15, 22
"""Pixels of the title's letters and of all others, and of a row of the legend."""
FINER = 2
"""Charts are drawn larger by this factor and shrunk, for smooth lines."""
BUCKETS = 400
"""Points of a curve at most; more are averaged in as many groups."""
DIM = (128, 132, 142)
MAX_NAME_LENGTH = 18
FEW = 25
"""Curves with fewer points show each as a dot."""
MAX_NUMBER = 1e30
UNITS = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))
"""From what size on a number is shown in a larger unit."""


Values = Sequence[float] | np.ndarray


class Curve(NamedTuple):
    """Points of a line, in order."""

    x: Values
    y: Values


@dataclass(frozen=True)
class Frame:
    """Maps numbers to places in the picture."""

    width: int
    height: int
    x: tuple[float, float]
    """Lowest and highest number across."""
    y: tuple[float, float]
    top: int = TOP
    """From the upper edge to its lines."""

    def place(self, x: float, y: float) -> tuple[float, float]:
        across, up = ((v - low) / (high - low) for v, (low, high) in ((x, self.x), (y, self.y)))
        inner = self.width - LEFT - RIGHT, self.height - self.top - BOTTOM
        return (LEFT + inner[0] * across) * FINER, (self.height - BOTTOM - inner[1] * min(max(up, 0), 1)) * FINER


def draw_chart(
    title: str,
    curves: Mapping[str, Curve],
    across: str = "iterations",
    smooth: int = 1,
    low: float | None = None,
    high: float | None = None,
    marks: Mapping[str, float] | None = None,
    size: tuple[int, int] = SIZE,
) -> Image.Image:
    """Draws a line a curve, without points that are not finite.

    With `smooth`, averages over so many points lie over a dim line. `across` names the horizontal axis; `low` and `high`
    fix the vertical one; `marks` are named upright lines. More than seven parameters: a chart's looks, all optional.
    """
    finite = {name: drop_infinite(curve) for name, curve in curves.items()}
    means = {name: thin_curve(smooth_curve(curve, smooth)) for name, curve in finite.items()}
    marks = dict(marks or {})
    reach = [curve.x for curve in means.values()] + [list(marks.values())]
    legend = lay_legend(list(curves), size[0])
    top = TOP + ROW * max((row for row, *_ in legend), default=0)
    frame = Frame(*size, find_span(reach), find_span([curve.y for curve in means.values()], low, high), top)
    sheet = Image.new("RGB", (size[0] * FINER, size[1] * FINER), PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_axes(draw, frame, title, across, marks)
    if not any(len(curve.x) for curve in means.values()):
        draw.text(frame.place(sum(frame.x) / 2, sum(frame.y) / 2), "nothing yet", DIM, _load_font(WORDS), anchor="mm")
    for i, curve in enumerate(finite.values() if smooth > 1 else ()):
        faint = tuple((colour + 3 * paper) // 4 for colour, paper in zip(COLOURS[i % len(COLOURS)], PAPER))
        _draw_line(draw, frame, thin_curve(curve), faint, 1)
    few = max((len(curve.x) for curve in means.values()), default=0) < FEW
    for i, curve in enumerate(means.values()):
        _draw_line(draw, frame, curve, COLOURS[i % len(COLOURS)], 2, dots=few)
    _draw_legend(draw, legend)
    return sheet.resize(size, Image.Resampling.LANCZOS)


def drop_infinite(curve: Curve) -> Curve:
    """Leaves out points that are not finite."""
    x, y = np.asarray(curve.x, dtype=float), np.asarray(curve.y, dtype=float)
    is_finite = (abs(x) < MAX_NUMBER) & (abs(y) < MAX_NUMBER)
    return Curve(x[is_finite], y[is_finite])


def smooth_curve(curve: Curve, window: int) -> Curve:
    """Averages so many values up to each."""
    if window <= 1 or len(curve.y) == 0:
        return curve
    sums = np.concatenate([[0.0], np.cumsum(curve.y)])
    ends = np.arange(1, len(curve.y) + 1)
    starts = np.maximum(ends - window, 0)
    return Curve(curve.x, (sums[ends] - sums[starts]) / (ends - starts))


def thin_curve(curve: Curve) -> Curve:
    """Averages neighbours where there are more points than the picture can show."""
    if len(curve.x) <= BUCKETS:
        return curve
    parts = [np.array_split(np.asarray(values), BUCKETS) for values in curve]
    return Curve(*([float(group.mean()) for group in groups] for groups in parts))


def find_span(values: Sequence[Values], low: float | None = None, high: float | None = None) -> tuple[float, float]:
    """Finds the span from the lowest value to the highest, or from `low` to `high` where given; never empty."""
    flat = [float(value) for part in values for value in part]
    low = min(flat, default=0.0) if low is None else low
    high = max(flat, default=1.0) if high is None else high
    if high - low < 1e-9 * max(abs(high), abs(low), 1e-9):
        room = abs(high) * 0.1 or 0.5
        low, high = low - room, high + room
    return low, high


def place_ticks(low: float, high: float, max_ticks: int = 6, min_step: float = 0.0) -> list[float]:
    """Gives round numbers within a span: steps of 1, 2 or 5, and no smaller than `min_step`."""
    size = 10 ** math.floor(math.log10((high - low) / max_ticks))
    step = next(size * times for times in (1, 2, 5, 10, 20) if (high - low) / (size * times) <= max_ticks)
    step = max(step, min_step)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def format_number(value: float) -> str:
    """Formats a number for an axis, in thousands, millions or more where it is large."""
    for low, unit, letter in UNITS:
        if abs(value) >= low:
            return f"{value / unit:.4g}{letter}"
    return "0" if abs(value) < 1e-12 else f"{value:.4g}"


def _draw_axes(draw: ImageDraw.ImageDraw, frame: Frame, title: str, across: str, marks: Mapping[str, float]) -> None:
    (left, right), (low, high) = frame.x, frame.y
    for value in place_ticks(low, high):
        (x, y), (end, _) = frame.place(left, value), frame.place(right, value)
        draw.line((x, y, end, y), EMPTY, FINER)
        draw.text((x - 8 * FINER, y), format_number(value), INK, _load_font(WORDS), anchor="rm")
    for value in place_ticks(left, right, 6, min_step=float(across == "iterations")):  # which are whole
        x, y = frame.place(value, low)
        draw.line((x, y, x, y + 5 * FINER), DIM, FINER)
        draw.text((x, y + 8 * FINER), format_number(value), INK, _load_font(WORDS), anchor="ma")
    ends = sorted([*marks.values(), right])
    for name, value in marks.items():
        (x, bottom), (_, top) = frame.place(value, low), frame.place(value, high)
        draw.line((x, bottom, x, top), DIM, FINER)
        end = frame.place(next((later for later in ends if later > value), right), low)[0]
        beside = cut_words(shorten(name), _load_font(WORDS), end - x - 6 * FINER)
        draw.text((x + 4 * FINER, top + 2 * FINER), beside, DIM, _load_font(WORDS))
    draw.line((*frame.place(left, low), *frame.place(right, low)), DIM, FINER)
    draw.text((RIGHT * FINER, 8 * FINER), title, INK, _load_font(TITLE))
    draw.text(((frame.width - RIGHT) * FINER, (frame.height - 6) * FINER), across, DIM, _load_font(WORDS), anchor="rs")


def _draw_line(
    draw: ImageDraw.ImageDraw, frame: Frame, curve: Curve, colour: tuple[int, ...], width: int, dots: bool = False
) -> None:
    points = [frame.place(x, y) for x, y in zip(*curve)]
    if len(points) > 1:
        draw.line(points, colour, width * FINER, joint="curve")
    for x, y in points if dots or len(points) == 1 else ():
        radius = (width + 1) * FINER
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)


def lay_legend(names: Sequence[str], width: int) -> list[tuple[int, float, str]]:
    """Lays curves' names out in rows of this width: of each its row, its place across, and its words."""
    placed, row, x = [], 0, float(RIGHT)
    for name in map(shorten, names):
        room = 18 + _load_font(WORDS).getlength(name) / FINER
        if x > RIGHT and x + room > width - RIGHT:
            row, x = row + 1, float(RIGHT)
        placed.append((row, x, name))
        x += room + 14
    return placed


def _draw_legend(draw: ImageDraw.ImageDraw, legend: Sequence[tuple[int, float, str]]) -> None:
    for i, (row, left, name) in enumerate(legend):
        x, y = left * FINER, (38 + row * ROW) * FINER
        draw.rectangle((x, y + 3 * FINER, x + 13 * FINER, y + 15 * FINER), COLOURS[i % len(COLOURS)])
        draw.text((x + 18 * FINER, y), name, INK, _load_font(WORDS))


def shorten(name: str) -> str:
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 3] + "..."


def _load_font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size * FINER)
