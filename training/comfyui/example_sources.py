"""Where CoLoGen Training Data takes its examples from."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from ..data.sample import Example
from ..data.tasks.folder import FolderExamples
from ..data.tasks.folder_layouts import FolderLayout, make_drawn
from ..from_scratch.world import World
from ..toy.store import TOY
from ..world.store import STICKERS
from .folders import data_folder
from .map_models import Draw

WORLD_COUNT = 1000
"""Of a world's examples, if nobody says how many."""


class Examples(NamedTuple):
    """The examples that CoLoGen Training Data encodes."""

    example: Callable[[int], Example]
    """Makes example number i, from 0 to `count`."""
    count: int
    skipped: Mapping[str, str]
    """Name -> why an example is left out; grows while examples are read."""


def open_folder(folder: str, task: str, size: int, count: int, seed: int, draw: Draw | None = None) -> Examples:
    """Opens examples of input/cologen/FOLDER, each picture about equally often; 0: once.
    `draw` makes sources that are missing."""
    layout = None if draw is None else FolderLayout("source", False, partial(make_drawn, draw))
    examples = FolderExamples(data_folder(folder), task, size, layout=layout)
    count = max(2, count or len(examples))

    def example(i: int) -> Example:
        return examples.example(i * len(examples) // count, np.random.default_rng((seed, i)))

    return Examples(example, count, examples.skipped)


def draw_examples(
    world: World, folder: str, task: str, size: int, count: int, seed: int, draw: Draw | None = None
) -> Examples:
    """Draws examples of a built-in world, which has a size of its own."""
    examples = [question.example for question in world.ask(task, max(2, count or WORLD_COUNT), seed)]
    return Examples(examples.__getitem__, len(examples), {})


FOLDER_SOURCE = "folder"
EXAMPLE_SOURCES = {
    FOLDER_SOURCE: open_folder,
    "built-in world": partial(draw_examples, TOY),
    "sticker world": partial(draw_examples, STICKERS),
}
