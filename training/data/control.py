"""Control maps (paper, section 3.1): the source is a map of the picture, the prompt its caption.

Canny as the paper's evaluation takes it. Its line art and HED come from learned networks; here stand two classical
ones of the same look, so that nothing has to be downloaded. A sample that brings a map of its own keeps it; networks
that draw such maps are in hed_network.py and learned_maps.py.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import numpy as np
from PIL import Image

from .sample import Example, Sample, Unfit

LOW, HIGH = 0.1, 0.2
SIDE = 512
"""Widths below are pixels for a shorter side of this, and grow with the picture."""
THIN = 0.7
"""Of a line: the narrower of the two Gaussians; the wider is 1.6 times as wide, which is nearly a Laplacian."""
FAINT, FULL = 0.01, 0.05
"""Differences at which ink begins, and at which it is black."""
SCALES = (1.0, 2.0, 4.0)
CONTRAST = 4.0
"""Of soft edges: how soon a weak one is white."""


def canny(picture: np.ndarray, low: float = LOW, high: float = HIGH) -> np.ndarray:
    """White edges on black: from where they are steeper than `high`, on for as long as they are steeper than `low`."""
    if min(picture.shape[:2]) < 3:  # nothing for kornia to mirror at the border
        return np.zeros_like(picture)
    import torch
    from kornia import filters
    from scipy import ndimage

    pixels = torch.tensor(picture).movedim(-1, 0)[None].float() / 255  # (1, 3, height, width)
    steep = filters.canny(pixels, low, high, hysteresis=False)[1][0, 0].numpy()  # 1, or 0.5 between the thresholds
    lines, count = ndimage.label(
        steep, np.ones((3, 3))
    )  # kornia's own hysteresis is the same, but a hundred times slower
    kept = np.isin(np.arange(count + 1), lines[steep == 1])
    return as_map(kept[lines])


def lineart(picture: np.ndarray) -> np.ndarray:
    """Thin dark lines on white: where a picture is darker than its surroundings, by a difference of Gaussians.

    A thin line gives one line, an edge one along its dark side. The channel in which it is darkest decides, so that
    red on an equally bright green has a line, too."""
    width = max(0.5, THIN * min(picture.shape[:2]) / SIDE)
    darker = strongest(lambda channel: blur(channel, 1.6 * width) - blur(channel, width), picture)
    return as_map(1 - (darker - FAINT) / (FULL - FAINT))


def hed(picture: np.ndarray) -> np.ndarray:
    """HED-like: soft white edges on black, the mean over several scales of how steep the steepest channel is.

    Normalised so that a step of height 1 gives 1 at every scale; sharp detail has only the finest, contours have all.
    Large pictures are read at SIDE, as the learned ones are: soft edges have no finer detail."""
    height, width = picture.shape[:2]
    if (shorter := min(height, width)) > SIDE:
        small = (round(width * SIDE / shorter), round(height * SIDE / shorter))
        soft = hed(np.asarray(Image.fromarray(picture).resize(small, Image.Resampling.BOX)))
        return np.asarray(Image.fromarray(soft).resize((width, height), Image.Resampling.BICUBIC))
    edges = 0
    for scale in SCALES:
        wide = max(0.5, scale * shorter / SIDE)
        slopes = strongest(lambda channel: steepness(blur(channel, wide)), picture)  # noqa: B023 - called at once
        edges += slopes * wide * (2 * np.pi) ** 0.5 / len(SCALES)
    return as_map(1 - np.exp(-CONTRAST * edges))


MAPS = {"canny": canny, "lineart": lineart, "hed": hed, "depth": None, "seg": None}
"""What draws each kind from a picture; None: only the sample can bring it."""


def control(rng: np.random.Generator, sample: Sample, kinds: Sequence[str] | None = None) -> Example:
    """A map of a kind drawn uniformly among those that can be had."""
    kinds = tuple(MAPS if kinds is None else kinds)
    possible = [kind for kind in kinds if kind in sample.maps or MAPS.get(kind)]
    if not possible:
        raise Unfit(
            f"The picture {sample.id!r} has no map of the kinds {', '.join(kinds)} (it brings "
            f"{', '.join(sample.maps) or 'none'}): ask for canny, lineart or hed, or bring the map with the picture."
        )
    kind = possible[int(rng.integers(len(possible)))]
    source = sample.maps[kind] if kind in sample.maps else MAPS[kind](sample.picture)
    return Example(sample.id, "control", sample.caption, source, sample.picture, kind)


def strongest(measure: Callable[[np.ndarray], np.ndarray], picture: np.ndarray) -> np.ndarray:
    """The largest of the three channels' values at every pixel; they are measured at the same time."""
    channels = np.moveaxis(picture.astype(np.float32) / 255, -1, 0)
    with ThreadPoolExecutor() as pool:
        return reduce(np.maximum, pool.map(measure, np.ascontiguousarray(channels)))


def blur(plane: np.ndarray, width: float) -> np.ndarray:
    """A Gaussian, mirrored at the border."""
    reach = int(np.ceil(3 * width))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for _ in range(2):  # down the columns, then, turned, along the rows
        wide = np.pad(plane, ((reach, reach), (0, 0)), "symmetric")
        plane = sum(weight * wide[i : i + len(plane)] for i, weight in enumerate(weights)).T
    return plane


def steepness(plane: np.ndarray) -> np.ndarray:
    """Length of the gradient; along a side of one pixel there is none."""
    slopes = (np.gradient(plane, axis=axis) for axis in (0, 1) if plane.shape[axis] > 1)
    return reduce(np.hypot, slopes, np.zeros_like(plane))


def as_map(plane: np.ndarray) -> np.ndarray:
    """0 to 1, as a grey RGB picture."""
    return np.repeat(np.round(np.clip(plane, 0, 1) * 255).astype(np.uint8)[..., None], 3, -1)
