"""What a picture can bring to training, and what a task makes of it.

A data set (sets/) yields `Sample`, `Pair` or `Triple`; a task (tasks/) makes an `Example` of one of these. Pictures are uint8 (height, width, 3), masks bool (height, width).
"""

from dataclasses import dataclass, field

import numpy as np

from ...prw.files.errors import show_as_ours
from .box import Box, find_box

MAP_KINDS = ("canny", "lineart", "hed", "depth", "seg")
"""Control maps that a sample can bring."""


@dataclass(frozen=True, eq=False)
class Thing:
    """An object in a picture."""

    name: str
    """What a person calls it: "the red circle on the left"; unique in its picture, or empty."""
    kind: str
    """Its class, for detection: "circle"."""
    mask: np.ndarray

    @property
    def box(self) -> Box:
        return find_box(self.mask)


@dataclass(frozen=True, eq=False)
class Sample:
    """An annotated picture."""

    id: str
    picture: np.ndarray
    caption: str = ""
    things: tuple[Thing, ...] = ()
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    """Control maps that it brings, by kind: uint8 (height, width, 3)."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two pictures of one subject."""

    id: str
    first: np.ndarray
    second: np.ndarray
    first_caption: str
    second_caption: str


@dataclass(frozen=True, eq=False)
class Triple:
    """A picture before and after an instruction."""

    id: str
    before: np.ndarray
    after: np.ndarray
    instruction: str


@dataclass(frozen=True, eq=False)
class Example:
    """What is trained on: from the source and the prompt, the model shall draw the target."""

    id: str
    task: str
    prompt: str
    source: np.ndarray
    target: np.ndarray
    kind: str = ""
    """Which variety of the task it is: the kind of hole, answer or map."""


AnySample = Sample | Pair | Triple
"""What a data set yields."""


@show_as_ours
class UnsuitableSample(ValueError):
    """A sample with which nothing is wrong, but which has nothing of what the task asks for."""
