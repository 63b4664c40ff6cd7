"""Control maps (paper, section 3.1): the source is a map of the picture, the prompt its caption.

Canny as the paper's evaluation takes it. Its line art and HED come from learned networks; here stand two classical
ones of the same look, so that nothing has to be downloaded. A sample that brings a map of its own keeps it; networks
that draw such maps are in hed_network.py and learned_maps.py.
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
THIN = 0.7
"""Of a line: the narrower of the two Gaussians; the wider is 1.6 times as wide, which is nearly a Laplacian."""
FAINT, FULL = 0.01, 0.05
"""Differences at which ink begins, and at which it is black."""
SCALES = (1.0, 2.0, 4.0)
CONTRAST = 4.0
"""Of soft edges: how soon a weak one is white."""


def lineart(picture: np.ndarray) -> np.ndarray:
    """Thin dark lines on white: where a picture is darker than its surroundings, by a difference of Gaussians.

    A thin line gives one line, an edge one along its dark side. The channel in which it is darkest decides, so that
    red on an equally bright green has a line, too."""
    width = max(0.5, THIN * min(picture.shape[:2]) / SIDE)
    darker = max_over_channels(lambda channel: blur(channel, 1.6 * width) - blur(channel, width), picture)
    return to_map(1 - (darker - FAINT) / (FULL - FAINT))


def hed(picture: np.ndarray) -> np.ndarray:
    """HED-like: soft white edges on black, the mean over several scales of how steep the steepest channel is.

    Normalised so that a step of height 1 gives 1 at every scale; sharp detail has only the finest, contours have all.
    Large pictures are read at SIDE, as the learned ones are: soft edges have no finer detail."""
    height, width = picture.shape[:2]
    if (shorter := min(height, width)) > SIDE:
        small = (round(width * SIDE / shorter), round(height * SIDE / shorter))
        soft = hed(np.asarray(Image.fromarray(picture).resize(small, Image.Resampling.BOX, reducing_gap=1.0)))
        return repeat_channels(
            np.asarray(Image.fromarray(soft[..., 0]).resize((width, height), Image.Resampling.BICUBIC))
        )
    edges = 0
    for scale in SCALES:
        wide = max(0.5, scale * shorter / SIDE)
        squares = max_over_channels(lambda channel: square_slope(blur(channel, wide)), picture)  # noqa: B023 - called at once
        edges += squares.sqrt_() * wide * (2 * np.pi) ** 0.5 / len(SCALES)
    return to_map(1 - (-CONTRAST * edges).exp())


MAP_DRAWERS = dict.fromkeys(MAP_KINDS) | {"canny": canny, "lineart": lineart, "hed": hed}
"""What draws each kind from a picture; None: only the sample can bring it."""


def make_control_example(rng: np.random.Generator, sample: Sample, kinds: Sequence[str] = ()) -> Example:
    """A map of a kind drawn uniformly among those that can be had."""
    kinds = tuple(kinds or MAP_DRAWERS)
    possible = [kind for kind in kinds if kind in sample.maps or MAP_DRAWERS.get(kind)]
    if not possible:
        raise UnsuitableSample(
            f"The picture {sample.id!r} has no map of the kinds {', '.join(kinds)} (it brings "
            f"{', '.join(sample.maps) or 'none'}): ask for canny, lineart or hed, or bring the map with the picture."
        )
    kind = possible[int(rng.integers(len(possible)))]
    source = sample.maps[kind] if kind in sample.maps else MAP_DRAWERS[kind](sample.picture)
    return Example(sample.id, "control", sample.caption, source, sample.picture, kind)


def max_over_channels(measure: Callable[[Tensor], Tensor], picture: np.ndarray) -> Tensor:
    """The largest of the three channels' values at every pixel; one channel at a time stays in the processor's cache."""
    channels = torch.tensor(picture).movedim(-1, 0).contiguous() / 255
    return reduce(torch.maximum, map(measure, channels))


def blur(plane: Tensor, width: float) -> Tensor:
    """A Gaussian, mirrored at the border."""
    reach = int(np.ceil(3 * width))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    weights = (weights / weights.sum()).tolist()
    mirrored = torch.from_numpy(np.pad(plane.numpy(), reach, "symmetric"))
    return filter_axis(1, filter_axis(0, mirrored, weights), weights)


def filter_axis(axis: int, plane: Tensor, weights: Sequence[float]) -> Tensor:
    """Without the margins. A sum of moved planes is several times sooner done than a convolution."""
    size = plane.shape[axis] - len(weights) + 1
    result = weights[0] * plane.narrow(axis, 0, size)
    for i, weight in enumerate(weights[1:], 1):
        result.add_(plane.narrow(axis, i, size), alpha=weight)
    return result


def square_slope(plane: Tensor) -> Tensor:
    """Along a side of one pixel there is none."""
    slopes = (torch.gradient(plane, dim=axis)[0] for axis in (0, 1) if plane.shape[axis] > 1)
    return reduce(lambda sum, slope: sum.addcmul_(slope, slope), slopes, torch.zeros_like(plane))


def to_map(plane: Tensor) -> np.ndarray:
    """0 to 1, as a grey RGB picture."""
    return repeat_channels((plane.clamp(0, 1) * 255).round().byte().numpy())


def repeat_channels(plane: np.ndarray) -> np.ndarray:
    return np.stack([plane] * 3, -1)
