"""Crops to the size to train on.

What belongs together goes through one `Crop`: picture, masks and maps stay on top of each other, and words that name
a side change with it. Order: crop, resize, mirror.
"""

import re
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from .box import Box, Size
from .sample import Example, Pair, Sample, Thing, Triple

MIN_CROP = 0.7
"""A random crop has at least this share of the sides of the largest one that fits (our choice)."""
MIN_VISIBLE = 0.5
"""A thing with fewer of its pixels left than this share is no longer in the picture (our choice)."""
SMOOTH_MAPS = {"depth", "hed", "lineart"}
"""Maps that may be interpolated; between two colours of any other lies a third that means something else."""
SIDE_WORDS = (
    ("left", "right"),
    ("leftmost", "rightmost"),
    ("leftward", "rightward"),
    ("leftwards", "rightwards"),
    ("lefthand", "righthand"),
)
OPPOSITES = {
    case(a): case(b) for pair in SIDE_WORDS for a, b in (pair, pair[::-1]) for case in (str.lower, str.title, str.upper)
}
"""Other spellings ("lEFT") stay: there is no telling how to write their opposite."""


@dataclass(frozen=True)
class Crop:
    """A part of a picture, perhaps mirrored, resized to what is trained on."""

    box: Box
    """The part, in the picture's pixels."""
    flip: bool
    """Mirrors it left to right."""
    size: Size
    """Height and width of what comes out."""

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        """Crops what may be interpolated."""
        return self._resize(pixels, Image.Resampling.BICUBIC)

    def labels(self, pixels: np.ndarray) -> np.ndarray:
        """Crops without interpolation: every value that comes out was there before."""
        return self._resize(pixels, Image.Resampling.NEAREST)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        return self.labels(mask.astype(np.uint8)).astype(bool)

    def map(self, kind: str, pixels: np.ndarray) -> np.ndarray:
        """Crops a control map of a kind."""
        return self.picture(pixels) if kind in SMOOTH_MAPS else self.labels(pixels)

    def text(self, text: str) -> str:
        return mirror_text(text) if self.flip else text

    def _resize(self, pixels: np.ndarray, resampling: Image.Resampling) -> np.ndarray:
        height, width = pixels.shape[:2]
        x0, y0, x1, y1 = self.box
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise ValueError(f"The picture is {width} x {height}, the view takes {self.box}: draw one for this size.")
        part = Image.fromarray(np.ascontiguousarray(pixels[y0:y1, x0:x1]))
        resized = np.array(part.resize(self.size[::-1], resampling))
        return resized[:, ::-1].copy() if self.flip else resized


def fit_crop_size(size: Size, out: Size) -> Size:
    """Fits the size of the largest crop of a picture that has the aspect of what is to come out."""
    scale = min(size[0] / out[0], size[1] / out[1])
    height, width = (min(side, max(1, round(part * scale))) for side, part in zip(size, out))
    return height, width


def draw_crop(rng: np.random.Generator, size: Size, out: Size, min_share: float = MIN_CROP, flip: float = 0.5) -> Crop:
    """Draws a random crop without distortion, mirrored with probability `flip` (0 for pictures with lettering)."""
    share = rng.uniform(min_share, 1)
    height, width = (max(1, round(share * side)) for side in fit_crop_size(size, out))
    y, x = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
    return Crop(Box(x, y, x + width, y + height), rng.random() < flip, out)


def centre_crop(size: Size, out: Size) -> Crop:
    height, width = fit_crop_size(size, out)
    y, x = (size[0] - height) // 2, (size[1] - width) // 2
    return Crop(Box(x, y, x + width, y + height), False, out)


def whole_crop(size: Size, out: Size) -> Crop:
    """Gives all of the picture, stretched if need be."""
    return Crop(Box(0, 0, size[1], size[0]), False, out)


def mirror_text(text: str) -> str:
    """Mirrors words: "the Left one" -> "the Right one": whole words only; twice is the same text again.."""
    return re.sub(r"\w+", lambda word: OPPOSITES.get(word[0], word[0]), text)


def crop_sample(crop: Crop, sample: Sample) -> Sample:
    things = (crop_thing(crop, thing) for thing in sample.things)
    return replace(
        sample,
        picture=crop.picture(sample.picture),
        caption=crop.text(sample.caption),
        things=tuple(thing for thing in things if thing),
        maps={kind: crop.map(kind, pixels) for kind, pixels in sample.maps.items()},
    )


def crop_thing(crop: Crop, thing: Thing) -> Thing | None:
    """Crops a thing; None, if too little of it is left."""
    visible = np.count_nonzero(thing.mask[crop.box.part])
    mask = crop.mask(thing.mask)
    if visible < MIN_VISIBLE * np.count_nonzero(thing.mask) or not mask.any():
        return None
    return replace(thing, name=crop.text(thing.name), mask=mask)


def crop_pair(first: Crop, second: Crop, pair: Pair) -> Pair:
    """Crops each of two pictures by itself: they need not lie on top of each other."""
    return replace(
        pair,
        first=first.picture(pair.first),
        second=second.picture(pair.second),
        first_caption=first.text(pair.first_caption),
        second_caption=second.text(pair.second_caption),
    )


def crop_triple(crop: Crop, triple: Triple) -> Triple:
    check_same_size(triple.id, triple.before, triple.after)
    return replace(
        triple,
        before=crop.picture(triple.before),
        after=crop.picture(triple.after),
        instruction=crop.text(triple.instruction),
    )


def crop_example(crop: Crop, example: Example, source_crop: Crop | None = None) -> Example:
    """Crops source and target alike, unless the source has a crop of its own; the prompt is about the target."""
    if source_crop is None:
        check_same_size(example.id, example.source, example.target)
    return replace(
        example,
        prompt=crop.text(example.prompt),
        source=(source_crop or crop).picture(example.source),
        target=crop.picture(example.target),
    )


def check_same_size(id: str, source: np.ndarray, target: np.ndarray) -> None:
    if source.shape != target.shape:
        raise ValueError(
            f"{id}: the source is {source.shape[1]} x {source.shape[0]}, the target {target.shape[1]} x "
            f"{target.shape[0]}, expected one size for both: resize the source."
        )
