"""What training from nothing asks of a world."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from ..data.sample import Example

Rng = np.random.Generator
Labels = list[list[int]]
"""(most, fields): which value each fact of a text has in each field of its language."""
Captioned = Callable[[Rng, int], tuple[np.ndarray, list[str]]]
"""Draws so many pictures uint8 (count, height, width, 3), and a text for each."""


class Referenced(NamedTuple):
    """Pictures, and the references that they come after."""

    task: str
    """Whose sources lie where these references do."""
    references: np.ndarray
    pictures: np.ndarray
    texts: list[str]


class Question(Protocol):
    """An example, and what else a world's scorers need."""

    @property
    def example(self) -> Example: ...


@dataclass(frozen=True, eq=False)
class Language:
    """The texts of a world, as its text encoder reads them (text.py)."""

    vocabulary: tuple[str, ...]
    joints: tuple[str, ...]
    """Between two of them stands what helps to state one fact."""
    max_facts: int
    """Facts that one text can state: tokens of its context."""
    values: Mapping[str, Sequence[str]]
    """What each field of a fact can be; the first is nothing."""
    draw: Callable[[Rng], tuple[str, Labels]]
    """Draws a text and what it states."""
    width: int = 96
    """Of a context token."""
    pooled: int = 128


class SubjectQuestion(Protocol):
    """Asks for one's own subject."""

    @property
    def prompt(self) -> str:
        """Has the subject's noun in brackets."""
        ...

    @property
    def size(self) -> int:
        """Counts what the prompt states of things; in prompts of one size the noun stands at the same place."""
        ...


@dataclass(frozen=True, eq=False)
class OwnSubject:
    """A subject that a world has no words for, and what is asked of a concept that was trained on its photos."""

    noun: str
    draw_photos: Callable[[int], Mapping[str, np.ndarray]]
    """By a seed."""
    draw_prior: Callable[[int, int], Mapping[str, tuple[np.ndarray, str]]]
    """Draws so many pictures of the class with their prompts, by a seed."""
    ask: Callable[[int, int], Sequence[SubjectQuestion]]
    """Draws so many questions, by a seed."""
    score: Callable[[Any, np.ndarray], dict[str, float]]
    """Fidelity and editability of an answer."""


@dataclass(frozen=True, eq=False, kw_only=True)
class World:
    """What a program draws, says and asks."""

    name: str
    """In recipes: of the base, of data, and of the table with the base's own numbers."""
    base: str
    """The base's name in banks that are trained on it."""
    folder: Path
    """Where the set lies that ships."""
    side: int
    language: Language
    draw_typical: Callable[[Rng], np.ndarray]
    """Draws what the VAE must be able to say."""
    draw_scenes: Callable[[Rng, int], np.ndarray]
    """Draws pictures for the decoder."""
    draw_captioned: Captioned
    draw_diptychs: Captioned
    """Draws pairs of pictures side by side, and words for the left one: what they leave open, the right one shows."""
    ask: Callable[[str, int, int], Sequence[Question]]
    """Makes the questions of a task, so many, by a seed: what stages are trained on."""
    ask_held_out: Callable[[str, int, int], Sequence[Question]]
    """The same for evaluation: no training has seen what they show."""
    scorers: Mapping[str, Callable[[Any, np.ndarray], dict[str, float]]]
    """By task: scores an answer to a question."""
    dtype: torch.dtype = torch.bfloat16
    """Of FLUX's file."""
    shard: int = 15 * 2**20
    """Bytes of one of FLUX's files at most; 0: one file."""
    choice: str = ""
    """Its name in ComfyUI's menus of files; empty: it is in none."""
    subject: OwnSubject | None = None
    guided_by_source: tuple[str, ...] = ()
    """Tasks whose answers are drawn with a negative prompt that reads no source."""
    draw_referenced: Callable[[Rng, int], Referenced] | None = None
    """Draws so many pictures after a reference, where the base learns to read some."""

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.scorers)
