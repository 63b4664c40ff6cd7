"""How the files of a folder of one's own (sets/folder.py) become an example: as the task's row says (EXAMPLE_MAKERS), or
else by where its source lies."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..formats.picture_files import BrokenFile, read_picture, read_prompt
from ..geometry import Crop, crop_example, whole_crop
from ..sample import Example
from ..sets.folder import PictureFiles
from .inpaint import fill_grey
from .masks import draw_scene_hole

ASPECT = 0.02
"""A source or mask may differ this much from the picture's aspect, as sizes get rounded; it is stretched."""
ChooseCrop = Callable[[np.ndarray], Crop]
"""Says how to crop a picture."""


class FolderLayout(NamedTuple):
    """What lies beside the picture, and what makes an example of both."""

    companion: str
    """The role of the file beside the picture."""
    required: bool
    make: Callable[..., Example]
    """Takes what chooses a crop, a random generator, an example without source, and the file's pixels (None: no file)."""

    def make_example(
        self, task: str, entry: PictureFiles, choose_crop: ChooseCrop, rng: np.random.Generator
    ) -> Example:
        target = read_picture(entry.files["target"], entry.root)
        path = entry.files.get(self.companion)
        companion = read_picture(path, entry.root) if path else None
        # no source yet: its target stands there
        bare = Example(entry.id, task, read_prompt(entry.files["prompt"], entry.root), target, target)
        return self.make(choose_crop, rng, bare, companion)


def make_aligned(choose_crop: ChooseCrop, rng: np.random.Generator, bare: Example, source: np.ndarray) -> Example:
    """Crops both alike: the source lies over the picture."""
    return crop_example(choose_crop(bare.target), replace(bare, source=fit_to(source, bare.target)))


def make_drawn(
    draw: Callable[[np.ndarray], np.ndarray],
    choose_crop: ChooseCrop,
    rng: np.random.Generator,
    bare: Example,
    source: np.ndarray | None,
) -> Example:
    """Draws the source, a map of the cropped picture, where there is no file."""
    if source is not None:
        return make_aligned(choose_crop, rng, bare, source)
    example = crop_example(choose_crop(bare.target), bare)
    return replace(example, source=draw(example.target))


def make_shifted(choose_crop: ChooseCrop, rng: np.random.Generator, bare: Example, source: np.ndarray) -> Example:
    """Crops each by itself: the source is another picture."""
    return crop_example(choose_crop(bare.target), replace(bare, source=source), choose_crop(source))


def make_inpainting(
    choose_crop: ChooseCrop, rng: np.random.Generator, bare: Example, mask: np.ndarray | None
) -> Example:
    """Empties the mask's hole; random ones, if there is no mask or nothing of it is left."""
    crop = choose_crop(bare.target)
    example, hole, kind = crop_example(crop, bare), None, "mask"
    if mask is not None:
        white = mask.mean(-1) > 127
        if not white.any():
            raise BrokenFile(f"the mask of {bare.id} has no white, which stands for the hole")
        hole = crop.mask(fit_to(white.astype(np.uint8), bare.target, labels=True))
    if hole is None or not hole.any():
        hole, kind = draw_scene_hole(rng, (), example.target.shape[:2]), "random"
    return replace(example, source=fill_grey(example.target, hole), kind=kind)


def fit_to(pixels: np.ndarray, target: np.ndarray, labels: bool = False) -> np.ndarray:
    """Resizes to the target's size, which must have the same aspect."""
    (height, width), size = pixels.shape[:2], target.shape[:2]
    if abs(height * size[1] / (width * size[0]) - 1) > ASPECT:
        raise BrokenFile(
            f"beside a picture of {size[1]} x {size[0]} stands a file of {width} x {height}, another aspect"
        )
    crop = whole_crop((height, width), size)
    return crop.labels(pixels) if labels else crop.picture(pixels)


HOLE = FolderLayout("mask", False, make_inpainting)
LAYOUTS = {"aligned": FolderLayout("source", True, make_aligned), "shifted": FolderLayout("source", True, make_shifted)}
"""By where a task's source lies (prw/tasks.py)."""
