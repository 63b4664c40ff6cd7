"""Control maps for training on a folder without them: by a network where its file is there, as in the terminal."""

from functools import partial
from typing import NamedTuple

import folder_paths

from ..data.tasks.control import MAP_DRAWERS
from ..data.tasks.learned_maps import LearnedMaps, describe_drawers
from .map_models import AUTO, SEG, Draw, find_map_model, list_map_models, open_map_model

NONE = "none"
MAP_CHOICES = (NONE, *MAP_DRAWERS)
"""Choices of the node."""


class TrainingMap(NamedTuple):
    """A kind of map, and what draws it on this machine."""

    kind: str
    networks: LearnedMaps
    """Those of the first folder that has one for the kind."""

    def describe(self) -> str:
        if MAP_DRAWERS[self.kind] is None:
            return f"maps are drawn: {self.kind} by {find_map_model(self.kind, AUTO).name}"
        words = describe_drawers((self.kind,), self.networks.paths)
        return words or f"maps are drawn: {self.kind}"

    def open(self) -> Draw:
        if self.kind in self.networks.paths:
            return partial(self.networks.draw, self.kind)
        return MAP_DRAWERS[self.kind] or open_map_model(self.kind, AUTO)


def find_training_map(kind: str) -> TrainingMap | None:
    if kind == NONE:
        return None
    list_map_models()  # older hosts do not know the folder before
    found = (LearnedMaps(folder) for folder in folder_paths.get_folder_paths(SEG))
    return TrainingMap(kind, next((maps for maps in found if kind in maps.paths), LearnedMaps("")))
