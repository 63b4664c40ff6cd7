"""Control maps (paper, section 2.3): the source is a map of the picture, the prompt its caption.

Canny as the paper's evaluation takes it. Its line art and HED come from learned networks; our choice: here stand two
classical ones of the same look, so that nothing has to be downloaded. A sample that brings a map of its own, or one that a
network draws of it (learned_maps.py), keeps it; networks for depth and segmentation are in map_networks.py.
"""

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..sample import MAP_KINDS, Example, Sample, UnsuitableSample
from .canny import canny

SIDE = 512
"""Widths below are pixels for a shorter side of this, and grow with the picture."""
NARROW = 0.7
"""Width of the narrower of the two Gaussians behind a line; the wider is 1.6 times as wide, which is nearly a Laplacian."""
FAINT, BLACK = 0.01, 0.05
"""Differences at which ink begins, and at which it is black."""
SCALES = (1.0, 2.0, 4.0)
CONTRAST = 4.0
"""How soon a weak soft edge is white."""


def lineart(picture: np.ndarray) -> np.ndarray:
    """Draws thin dark lines on white: where a picture is darker than its surroundings, by a difference of Gaussians.

    A thin line gives one line, an edge one along its dark side. The channel in which it is darkest decides, so that
    red on an equally bright green has a line, too."""
    width = max(0.5, NARROW * min(picture.shape[:2]) / SIDE)
    darker = max_over_channels(lambda channel: blur(channel, 1.6 * width) - blur(channel, width), picture)
    return to_map(1 - (darker - FAINT) / (BLACK - FAINT))


def hed(picture: np.ndarray) -> np.ndarray:
    """Draws soft white edges on black: the mean over several scales of how steep the steepest channel is.

    Normalised so that a step of height 1 gives 1 at every scale; sharp detail has only the finest, contours have all.
    Large pictures are read at SIDE, as the learned ones are: soft edges have no finer detail."""
    height, width = picture.shape[:2]
    if (shorter := min(height, width)) > SIDE:
        small = (round(width * SIDE / shorter), round(height * SIDE / shorter))
        soft = hed(np.asarray(Image.fromarray(picture).resize(small, Image.Resampling.BOX, reducing_gap=1.0)))
        return repeat_channels(
            np.asarray(Image.fromarray(soft[..., 0]).resize((width, height), Image.Resampling.BICUBIC))
        )
    widths = (max(0.5, scale * shorter / SIDE) for scale in SCALES)
    edges = reduce(torch.add, (measure_slope(picture, width) / len(SCALES) for width in widths))
    return to_map(1 - (-CONTRAST * edges).exp())


def measure_slope(picture: np.ndarray, width: float) -> Tensor:
    """Measures how steep the steepest channel is after a blur; a step of height 1 gives 1."""
    squares = max_over_channels(lambda channel: square_slope(blur(channel, width)), picture)
    return squares.sqrt_() * width * (2 * np.pi) ** 0.5


MAP_DRAWERS: dict[str, Callable[[np.ndarray], np.ndarray] | None] = dict.fromkeys(MAP_KINDS) | {
    "canny": canny,
    "lineart": lineart,
    "hed": hed,
}
"""What draws each kind from a picture; None: only the sample can bring it."""


def make_control_example(rng: np.random.Generator, sample: Sample, kinds: Sequence[str] = ()) -> Example:
    """Takes or draws a map of a kind chosen uniformly among those that can be had."""
    kinds = tuple(kinds or MAP_DRAWERS)
    possible = [kind for kind in kinds if kind in sample.maps or MAP_DRAWERS.get(kind)]
    if not possible:
        raise UnsuitableSample(
            f"The picture {sample.id!r} has no map of the kinds {', '.join(kinds)} (it brings "
            f"{', '.join(sample.maps) or 'none'}): ask for canny, lineart or hed, or bring the map with the picture."
        )
    kind = possible[int(rng.integers(len(possible)))]
    draw = MAP_DRAWERS.get(kind)
    source = sample.maps[kind] if kind in sample.maps or draw is None else draw(sample.picture)
    return Example(sample.id, "control", sample.caption, source, sample.picture, kind)


def max_over_channels(measure: Callable[[Tensor], Tensor], picture: np.ndarray) -> Tensor:
    """Takes the largest of the three channels' values at every pixel; one channel at a time stays in the cache."""
    channels = torch.tensor(picture).movedim(-1, 0).contiguous() / 255
    return reduce(torch.maximum, map(measure, channels))


def blur(plane: Tensor, width: float) -> Tensor:
    """Blurs by a Gaussian, mirrored at the border."""
    reach = int(np.ceil(3 * width))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    weights = (weights / weights.sum()).tolist()
    mirrored = torch.from_numpy(np.pad(plane.numpy(), reach, "symmetric"))
    return filter_axis(1, filter_axis(0, mirrored, weights), weights)


def filter_axis(axis: int, plane: Tensor, weights: Sequence[float]) -> Tensor:
    """Filters along an axis, without the margins, as a sum of shifted planes: several times faster than a convolution."""
    size = plane.shape[axis] - len(weights) + 1
    result = weights[0] * plane.narrow(axis, 0, size)
    for i, weight in enumerate(weights[1:], 1):
        result.add_(plane.narrow(axis, i, size), alpha=weight)
    return result


def square_slope(plane: Tensor) -> Tensor:
    """Squares how steep each pixel is; along a side of one pixel there is no slope."""
    slopes = (torch.gradient(plane, dim=axis)[0] for axis in (0, 1) if plane.shape[axis] > 1)
    return reduce(lambda sum, slope: sum.addcmul_(slope, slope), slopes, torch.zeros_like(plane))


def to_map(plane: Tensor) -> np.ndarray:
    """Turns 0 to 1 into a grey RGB picture."""
    return repeat_channels((plane.clamp(0, 1) * 255).round().byte().numpy())


def repeat_channels(plane: np.ndarray) -> np.ndarray:
    return np.stack([plane] * 3, -1)
