"""Line charts of a run, drawn with Pillow."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .route_map import COLOURS, EMPTY, INK, PAPER

LEFT, TOP, RIGHT, BOTTOM = 64, 64, 20, 44
FINER = 2
"""Drawn larger by this and shrunk, for smooth lines."""
BUCKETS = 400
"""A curve of more points shows means."""
DIM = (128, 132, 142)
LONGEST_NAME = 18
FEW = 25
"""Points that are worth a dot each."""
LARGEST = 1e30
UNITS = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))
"""From what size on a number is shown in a larger unit."""


class Curve(NamedTuple):
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Frame:
    """From numbers to places in the picture."""

    width: int
    height: int
    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        across, up = ((v - low) / (high - low) for v, (low, high) in ((x, self.x), (y, self.y)))
        inner = self.width - LEFT - RIGHT, self.height - TOP - BOTTOM
        return (LEFT + inner[0] * across) * FINER, (self.height - BOTTOM - inner[1] * min(max(up, 0), 1)) * FINER


def chart(
    title: str,
    curves: Mapping[str, Curve],
    across: str = "iterations",
    smooth: int = 1,
    low: float | None = None,
    high: float | None = None,
    marks: Mapping[str, float] | None = None,
    size: tuple[int, int] = (720, 360),
) -> Image.Image:
    """A line a curve. What is not finite is left out; with `smooth`, means over so many points lie over a dim line.

    `marks` are named upright lines.
    """
    drawn = {name: finite(curve) for name, curve in curves.items()}
    means = {name: thinned(averaged(curve, smooth)) for name, curve in drawn.items()}
    marks = dict(marks or {})
    reach = [curve.x for curve in means.values()] + [list(marks.values())]
    frame = Frame(*size, span(reach), span([curve.y for curve in means.values()], low, high))
    sheet = Image.new("RGB", (size[0] * FINER, size[1] * FINER), PAPER)
    draw = ImageDraw.Draw(sheet)
    _axes(draw, frame, title, across, marks)
    if not any(len(curve.x) for curve in means.values()):
        draw.text(frame.place(sum(frame.x) / 2, sum(frame.y) / 2), "nothing yet", DIM, _font(14), anchor="mm")
    for i, curve in enumerate(drawn.values() if smooth > 1 else ()):
        faint = tuple((colour + 3 * paper) // 4 for colour, paper in zip(COLOURS[i % len(COLOURS)], PAPER))
        _line(draw, frame, thinned(curve), faint, 1)
    few = max((len(curve.x) for curve in means.values()), default=0) < FEW
    for i, curve in enumerate(means.values()):
        _line(draw, frame, curve, COLOURS[i % len(COLOURS)], 2, dots=few)
    _legend(draw, list(curves), size[0])
    return sheet.resize(size, Image.Resampling.LANCZOS)


def finite(curve: Curve) -> Curve:
    x, y = np.asarray(curve.x, dtype=float), np.asarray(curve.y, dtype=float)
    known = (abs(x) < LARGEST) & (abs(y) < LARGEST)
    return Curve(x[known], y[known])


def averaged(curve: Curve, window: int) -> Curve:
    """The mean of so many values up to each."""
    if window <= 1 or len(curve.y) == 0:
        return curve
    sums = np.concatenate([[0.0], np.cumsum(curve.y)])
    ends = np.arange(1, len(curve.y) + 1)
    starts = np.maximum(ends - window, 0)
    return Curve(curve.x, (sums[ends] - sums[starts]) / (ends - starts))


def thinned(curve: Curve) -> Curve:
    """No more points than the picture can show."""
    if len(curve.x) <= BUCKETS:
        return curve
    parts = [np.array_split(np.asarray(values), BUCKETS) for values in curve]
    return Curve(*([float(part.mean()) for part in each] for each in parts))


def span(values: Sequence[Sequence[float]], low: float | None = None, high: float | None = None) -> tuple[float, float]:
    """From the lowest to the highest, never empty."""
    flat = [float(value) for each in values for value in each]
    low = min(flat, default=0.0) if low is None else low
    high = max(flat, default=1.0) if high is None else high
    if high - low < 1e-9 * max(abs(high), abs(low), 1e-9):
        room = abs(high) * 0.1 or 0.5
        low, high = low - room, high + room
    return low, high


def ticks(low: float, high: float, most: int = 6, least: float = 0.0) -> list[float]:
    """Round numbers within: steps of 1, 2 or 5, and no smaller than `least`."""
    size = 10 ** math.floor(math.log10((high - low) / most))
    step = next(size * times for times in (1, 2, 5, 10, 20) if (high - low) / (size * times) <= most)
    step = max(step, least)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def label(value: float) -> str:
    for least, unit, letter in UNITS:
        if abs(value) >= least:
            return f"{value / unit:.4g}{letter}"
    return "0" if abs(value) < 1e-12 else f"{value:.4g}"


def _axes(draw, frame: Frame, title: str, across: str, marks: Mapping[str, float]) -> None:
    (left, right), (low, high) = frame.x, frame.y
    for value in ticks(low, high):
        (x, y), (end, _) = frame.place(left, value), frame.place(right, value)
        draw.line((x, y, end, y), EMPTY, FINER)
        draw.text((x - 8 * FINER, y), label(value), INK, _font(12), anchor="rm")
    for value in ticks(left, right, 8, least=float(across == "iterations")):  # which are whole
        x, y = frame.place(value, low)
        draw.line((x, y, x, y + 5 * FINER), DIM, FINER)
        draw.text((x, y + 8 * FINER), label(value), INK, _font(12), anchor="ma")
    for name, value in marks.items():
        (x, bottom), (_, top) = frame.place(value, low), frame.place(value, high)
        draw.line((x, bottom, x, top), DIM, FINER)
        draw.text((x + 4 * FINER, top + 2 * FINER), shortened(name), DIM, _font(11))
    draw.line((*frame.place(left, low), *frame.place(right, low)), DIM, FINER)
    draw.text((LEFT * FINER, 10 * FINER), title, INK, _font(15))
    draw.text(((frame.width - RIGHT) * FINER, (frame.height - 6) * FINER), across, DIM, _font(12), anchor="rs")


def _line(draw, frame: Frame, curve: Curve, colour, width: int, dots: bool = False) -> None:
    points = [frame.place(x, y) for x, y in zip(*curve)]
    if len(points) > 1:
        draw.line(points, colour, width * FINER, joint="curve")
    for x, y in points if dots or len(points) == 1 else ():
        radius = (width + 1) * FINER
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)


def _legend(draw, names: Sequence[str], width: int) -> None:
    x, y = LEFT * FINER, 36 * FINER
    for i, name in enumerate(map(shortened, names)):
        room = 18 * FINER + draw.textlength(name, _font(12))
        if x + room > (width - RIGHT) * FINER:
            draw.text((x, y), "...", INK, _font(12))
            return
        draw.rectangle((x, y + 3 * FINER, x + 11 * FINER, y + 13 * FINER), COLOURS[i % len(COLOURS)])
        draw.text((x + 16 * FINER, y), name, INK, _font(12))
        x += room + 14 * FINER


def shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."


def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size=size * FINER)
