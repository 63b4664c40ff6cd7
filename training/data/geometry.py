"""One look at a picture: a crop, perhaps mirrored, at the size to train on.

What belongs together is looked at through one `View`: picture, masks and maps stay on top of each other, and words
that name a side change with it. Order: crop, resize, mirror.
"""

import re
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from .box import Box, Size
from .sample import Example, Pair, Sample, Thing, Triple

MIN_CROP = 0.7
"""A drawn crop has at least this share of the sides of the largest one that fits."""
MIN_VISIBLE = 0.5
"""A thing with fewer of its pixels left than this share is no longer in the picture."""
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
    box: Box
    """What of the picture is seen."""
    flip: bool
    """Mirrored left to right."""
    size: Size
    """Height and width of what comes out."""

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        return self._look(pixels, Image.Resampling.BICUBIC)

    def labels(self, pixels: np.ndarray) -> np.ndarray:
        """Without interpolation: every value that comes out was there before."""
        return self._look(pixels, Image.Resampling.NEAREST)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        return self.labels(mask.astype(np.uint8)).astype(bool)

    def words(self, text: str) -> str:
        return mirror_text(text) if self.flip else text

    def _look(self, pixels: np.ndarray, resampling: Image.Resampling) -> np.ndarray:
        height, width = pixels.shape[:2]
        x0, y0, x1, y1 = self.box
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise ValueError(f"The picture is {width} x {height}, the view takes {self.box}: draw one for this size.")
        part = Image.fromarray(np.ascontiguousarray(pixels[y0:y1, x0:x1]))
        seen = np.array(part.resize(self.size[::-1], resampling))
        return seen[:, ::-1].copy() if self.flip else seen


def fit_crop_size(size: Size, out: Size) -> Size:
    """The largest crop of a picture that has the aspect of what is to come out."""
    scale = min(size[0] / out[0], size[1] / out[1])
    return tuple(min(whole, max(1, round(part * scale))) for whole, part in zip(size, out))


def draw_crop(rng: np.random.Generator, size: Size, out: Size, least: float = MIN_CROP, flip: float = 0.5) -> Crop:
    """A random crop without distortion, mirrored with probability `flip` (0 for pictures with lettering)."""
    share = rng.uniform(least, 1)
    height, width = (max(1, round(share * side)) for side in fit_crop_size(size, out))
    y, x = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
    return Crop(Box(x, y, x + width, y + height), bool(rng.random() < flip), out)


def centre_crop(size: Size, out: Size) -> Crop:
    height, width = fit_crop_size(size, out)
    y, x = (size[0] - height) // 2, (size[1] - width) // 2
    return Crop(Box(x, y, x + width, y + height), False, out)


def whole_crop(size: Size, out: Size) -> Crop:
    """All of the picture, stretched if need be."""
    return Crop(Box(0, 0, size[1], size[0]), False, out)


def mirror_text(text: str) -> str:
    """ "the Left one" -> "the Right one": whole words only; twice is the same text again."""
    return re.sub(r"\w+", lambda word: OPPOSITES.get(word[0], word[0]), text)


def crop_sample(view: Crop, sample: Sample) -> Sample:
    things = (crop_thing(view, thing) for thing in sample.things)
    return replace(
        sample,
        picture=view.picture(sample.picture),
        caption=view.words(sample.caption),
        things=tuple(thing for thing in things if thing),
        maps={
            kind: view.picture(pixels) if kind in SMOOTH_MAPS else view.labels(pixels)
            for kind, pixels in sample.maps.items()
        },
    )


def crop_thing(view: Crop, thing: Thing) -> Thing | None:
    """Nothing, if too little of it is seen."""
    x0, y0, x1, y1 = view.box
    left = np.count_nonzero(thing.mask[y0:y1, x0:x1])
    mask = view.mask(thing.mask)
    if left < MIN_VISIBLE * np.count_nonzero(thing.mask) or not mask.any():
        return None
    return replace(thing, name=view.words(thing.name), mask=mask)


def crop_pair(first: Crop, second: Crop, pair: Pair) -> Pair:
    """The two pictures need not lie on top of each other: each has a view of its own."""
    return replace(
        pair,
        first=first.picture(pair.first),
        second=second.picture(pair.second),
        first_caption=first.words(pair.first_caption),
        second_caption=second.words(pair.second_caption),
    )


def crop_triple(view: Crop, triple: Triple) -> Triple:
    check_same_size(triple.id, triple.before, triple.after)
    return replace(
        triple,
        before=view.picture(triple.before),
        after=view.picture(triple.after),
        instruction=view.words(triple.instruction),
    )


def crop_example(view: Crop, example: Example, source_view: Crop | None = None) -> Example:
    """Source and target alike, unless the source brings its own view; the prompt tells of the target."""
    if source_view is None:
        check_same_size(example.id, example.source, example.target)
    return replace(
        example,
        prompt=view.words(example.prompt),
        source=(source_view or view).picture(example.source),
        target=view.picture(example.target),
    )


def check_same_size(id: str, source: np.ndarray, target: np.ndarray) -> None:
    if source.shape != target.shape:
        raise ValueError(
            f"{id}: the source is {source.shape[1]} x {source.shape[0]}, the target {target.shape[1]} x "
            f"{target.shape[0]}, expected one size for both: resize the source."
        )
