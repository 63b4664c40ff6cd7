"""Looks for stickers in a picture, by comparing every one, in every size, with every position.

The comparison is blind to hue at first: a turn of hue leaves a pixel's greatest and smallest channel what they are. At
half the picture's resolution the gains of all positions are one product of Fourier transforms; the best few are then
compared in full.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import fft

from .grounds import SIDE
from .render import clip_part, find_part
from .scene import SIZES, Thing
from .stickers import draw_sticker, list_hues

HALF = SIDE // 2
TOLERANCE = 45.0
"""Levels, of 255: as far off a pixel may be and still speak for a thing, where the ground would be farther off."""
COARSE_TOLERANCE = 60.0
"""The same at half the resolution, where a sticker can lie a pixel off its place."""
MIN_OPACITY = 0.1
"""Less of a sticker is not compared."""
HYPOTHESES, A_PLACE, NEIGHBOURHOOD = 40, 12, 24
"""Stickers that are compared in full; how many of them at most within so many pixels."""
POSITIONS, APART = 3, 6
"""Positions of a sticker in a size that are hypotheses; the pixels, at half the resolution, they are apart in x or y."""
MAX_SHIFT = 2
"""Pixels each way in which a hypothesis is moved."""


class Match(NamedTuple):
    thing: Thing
    gain: float
    """How much better the thing explains its pixels than the ground does."""
    doubt: float
    """The part of what its pixels differ from the ground that stays unexplained."""
    seen: float
    """The share of the thing that was compared."""


class Evidence(NamedTuple):
    """A picture, and what is to be explained in it."""

    picture: np.ndarray
    """float32 (SIDE, SIDE, 3)."""
    ground: np.ndarray
    """The same: what it would be without things."""
    free: np.ndarray
    """1 where no thing was found yet (SIDE, SIDE)."""


@lru_cache(maxsize=768)
def transform_sticker(name: str) -> np.ndarray:
    """Transforms a sticker's mask, levels and squares in each size, complex64 (sizes, 4, HALF, HALF // 2 + 1)."""
    planes = np.zeros((len(SIZES), 4, HALF, HALF), np.float32)
    for plane, side in zip(planes, SIZES.values()):
        sticker = draw_sticker(name, side)
        whole = np.zeros((SIDE, SIDE, 4), np.float32)
        height, width = sticker.shape[:2]
        top, left = HALF - height // 2, HALF - width // 2
        whole[top : top + height, left : left + width] = sticker
        levels = measure_levels(whole[..., :3]) * whole[..., 3]
        mask, *levels = np.roll(halve_and_blur(np.stack([whole[..., 3], *levels])), (-HALF // 2, -HALF // 2), (1, 2))
        levels = np.stack(levels) / np.maximum(mask, 1e-3)  # opacities of one half and less count little
        plane[:] = mask**2 * np.stack([np.ones_like(mask), *levels, (levels**2).sum(0)])
    return np.conj(fft.rfft2(planes)).astype(np.complex64)


def halve_and_blur(planes: np.ndarray) -> np.ndarray:
    """Halves the last two axes and blurs, so that half a pixel makes little difference."""
    small = 0.25 * (planes[:, ::2, ::2] + planes[:, 1::2, ::2] + planes[:, ::2, 1::2] + planes[:, 1::2, 1::2])
    for axis in (1, 2):
        small = 0.5 * small + 0.25 * (np.roll(small, 1, axis) + np.roll(small, -1, axis))
    return small


@lru_cache(maxsize=4)
def transform_stickers(names: tuple[str, ...]) -> np.ndarray:
    """Gives complex64 (4, names * sizes, HALF, HALF // 2 + 1)."""
    return np.ascontiguousarray(np.concatenate([transform_sticker(name) for name in names]).swapaxes(0, 1))


def measure_gains(evidence: Evidence, names: tuple[str, ...]) -> np.ndarray:
    """Measures what every sticker and size would gain with its centre at every position (names * sizes, HALF, HALF)."""
    levels, ground = (halve_and_blur(measure_levels(picture)) for picture in (evidence.picture, evidence.ground))
    worth = np.minimum(((levels - ground) ** 2).sum(0), 2 * COARSE_TOLERANCE**2)
    full = np.stack([worth - (levels**2).sum(0), *(2 * levels), -np.ones_like(worth)])
    planes = fft.rfft2((full * halve_and_blur(evidence.free[None])).astype(np.float32))
    stickers = transform_stickers(names)
    product = stickers[0] * planes[0]
    for sticker, plane in zip(stickers[1:], planes[1:]):
        product += sticker * plane
    return fft.irfft2(product, (HALF, HALF))


def find_hypotheses(evidence: Evidence, names: tuple[str, ...], count: int = HYPOTHESES) -> list[Thing]:
    """Lists the things that gain most, each name and size at its best positions."""
    shapes = [(name, size) for name in names for size in SIZES]
    found = [
        (gain, Thing(name, 2 * x, 2 * y, size))
        for (name, size), gains in zip(shapes, measure_gains(evidence, names))
        for gain, x, y in find_peaks(gains)
    ]
    chosen: list[Thing] = []
    for _, thing in sorted(found, key=lambda peak: -peak[0]):
        if sum(abs(thing.x - other.x) + abs(thing.y - other.y) < NEIGHBOURHOOD for other in chosen) < A_PLACE:
            chosen.append(thing)
        if len(chosen) == count:
            break
    return chosen


def find_peaks(gains: np.ndarray) -> list[tuple[float, int, int]]:
    """Lists the best positions in (HALF, HALF): gain, x and y."""
    gains, peaks = gains.copy(), []
    for _ in range(POSITIONS):
        y, x = divmod(int(gains.argmax()), HALF)
        peaks.append((float(gains[y, x]), x, y))
        gains[max(y - APART, 0) : y + APART + 1, max(x - APART, 0) : x + APART + 1] = -np.inf
    return peaks


def compare(evidence: Evidence, thing: Thing) -> Match:
    """Compares a thing with its place in the picture."""
    sticker, place = clip_part(thing)
    picture, ground = evidence.picture[place], evidence.ground[place]
    weight = (sticker[..., 3] > MIN_OPACITY) * evidence.free[place]
    error = square(picture - ground - sticker[..., 3:] * (sticker[..., :3] - ground))
    worth = square(picture - ground)
    seen = weight.sum() / (draw_sticker(thing.sticker, SIZES[thing.size])[..., 3] > MIN_OPACITY).sum()
    gain = (weight * (np.minimum(worth, TOLERANCE**2) - error)).sum()
    doubt = (weight * error).sum() / max((weight * worth).sum(), 1e-6)
    return Match(thing, float(gain), float(doubt), float(seen))


def refine(evidence: Evidence, thing: Thing) -> Match:
    """Moves a thing and turns its hue to what fits best."""
    x, y = find_best_shift(evidence, thing)
    hues = ["", *list_hues(thing.sticker)]
    return max((compare(evidence, replace(thing, x=x, y=y, hue=hue)) for hue in hues), key=lambda match: match.gain)


def find_best_shift(evidence: Evidence, thing: Thing) -> tuple[int, int]:
    """Gives the centre at which the greatest and smallest channels of every other row and column fit best."""
    sticker, top, left = find_part(thing)
    height, width = sticker.shape[:2]
    margin = MAX_SHIFT + max(height, width)
    window = np.s_[
        top - MAX_SHIFT + margin : top + MAX_SHIFT + height + margin,
        left - MAX_SHIFT + margin : left + MAX_SHIFT + width + margin,
    ]
    cut = np.pad(np.dstack([evidence.picture, evidence.free]), ((margin, margin), (margin, margin), (0, 0)))[window]
    levels, free = measure_levels(cut[..., :3]), cut[..., 3]
    own, mask, best = measure_levels(sticker[::2, ::2, :3]), sticker[::2, ::2, 3], (np.inf, thing.x, thing.y)
    for down in range(2 * MAX_SHIFT + 1):
        for right in range(2 * MAX_SHIFT + 1):
            part = np.s_[..., down : down + height : 2, right : right + width : 2]
            weight, apart = mask * free[part], levels[part] - own
            error = np.einsum("yx,cyx,cyx->", weight, apart, apart) / max(weight.sum(), 1e-6)
            best = min(best, (float(error), thing.x + right - MAX_SHIFT, thing.y + down - MAX_SHIFT))
    return best[1], best[2]


def measure_levels(pixels: np.ndarray) -> np.ndarray:
    """Gives the greatest and the smallest channel (2, height, width)."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return np.stack([np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)])


def square(difference: np.ndarray) -> np.ndarray:
    """Gives the mean square over the channels."""
    return np.einsum("yxc,yxc->yx", difference, difference) / 3


def find_matches(evidence: Evidence, names: Sequence[str]) -> list[Match]:
    """Lists the best hypotheses as they are after a closer look, the best first."""
    matches = [refine(evidence, thing) for thing in find_hypotheses(evidence, tuple(names))]
    return sorted(matches, key=lambda match: -match.gain)
