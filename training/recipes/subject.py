"""A recipe for one's own subject: a curriculum of one stage, and a table [subject] with what is special about it.

The stage is named like the concept; its `replay` is the share of prior preservation: pictures of the class with plain
prompts.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...prw.files.validate import build, check_choice, check_range, check_type, shorten
from ...prw.personalization.concept import BLOCK_KINDS
from .curriculum import BUDGETS, SUBJECT, Curriculum, Stage, find_recipe, make_curriculum, scale_curriculum
from .read_recipe import list_budgets, read_tables

OWN, PRIOR = "photos", "prior"
"""The tasks of its datasets."""
SLOT = "{}"
"""Stands for the noun in a caption."""


@dataclass(frozen=True)
class Subject:
    """The table [subject]."""

    noun: str = "thing"
    """The class, as a prompt says it."""
    caption: str = "photo of a {}"
    """The photos' prompt; the context vectors begin as its other words."""
    photos: str = ""
    """A folder; empty: the built-in world's own."""
    prior: str = ""
    """A folder of pictures of the class, each with its prompt in NAME.txt; empty: the built-in world's."""
    ico: bool = True
    """Image-specific context optimisation: vectors for each photo's own place, pose and light, thrown away in the end."""
    tokens: int = 2
    """Vectors of the concept."""
    contexts: int = 4
    """Vectors of each photo."""
    token_rate: float = 1.0
    """Learning rate of the concept's vectors, in units of `rate`."""
    context_rate: float = 10.0
    """Learning rate of the photos' vectors, in units of `rate`."""
    where: str = "all"
    """Whose keys and values have low-rank weights: "text" (the double blocks' text alone) or "all" (and the single blocks')."""
    prompts: tuple[str, ...] = ()
    """Prompts of the sample pictures."""

    def __post_init__(self):
        if not self.noun.strip() or set("[]{}") & set(self.noun):
            raise ValueError(
                f"The subject's noun is {shorten(self.noun)!r}, expected a word without brackets: type what it is, such as dog."
            )
        if self.caption.count(SLOT) != 1 or set("[]") & set(self.caption):
            raise ValueError(f"the subject's caption is {shorten(self.caption)!r}, expected one {SLOT} for the noun")
        for name, low, high in (("tokens", 1, 256), ("contexts", 1, 256)):
            check_range(f"subject.{name}", getattr(self, name), low, high)
        for name in ("token_rate", "context_rate"):
            check_range(f"subject.{name}", getattr(self, name), 0, 1000)
        check_choice("subject.where", self.where, tuple(BLOCK_KINDS))

    @property
    def prompt(self) -> str:
        return self.caption.replace(SLOT, self.noun)

    @property
    def marked_prompt(self) -> str:
        """With the noun in brackets, as find_words reads it."""
        return self.caption.replace(SLOT, f"[{self.noun}]")


@dataclass(frozen=True)
class SubjectRecipe:
    curriculum: Curriculum
    subject: Subject

    def __post_init__(self):
        if len(self.curriculum.stages) != 1:
            raise ValueError(f"a subject has {len(self.curriculum.stages)} stages, expected one")
        if self.stage.ceiling:
            raise ValueError(
                f'{self.stage.name}.iterations is "auto", expected a number: no photos are held out to stand still on'
            )
        if self.curriculum.settings.text_drop:
            raise ValueError(
                f"text_drop is {self.curriculum.settings.text_drop}, expected 0: a concept is nothing without its noun"
            )

    @property
    def stage(self) -> Stage:
        return self.curriculum.stages[0]


def make_subject_recipe(data: dict[str, Any]) -> SubjectRecipe:
    """Makes one from a recipe's tables."""
    rest = {"text_drop": 0.0, **{key: value for key, value in data.items() if key != SUBJECT}}
    rest["stages"] = [
        {"task": OWN, **check_type("stages", table, dict)}
        for table in check_type("stages", rest.get("stages", []), list)
    ]
    return SubjectRecipe(make_curriculum(rest), build(Subject, data[SUBJECT], SUBJECT))


def load_recipe(name: str | os.PathLike, changes: Sequence[str] = (), budget: str = "") -> Curriculum | SubjectRecipe:
    """Loads a TOML file, or a built-in recipe by its name: of a curriculum, or of one's own subject."""
    path = find_recipe(name)
    try:
        text = path.read_text(encoding="utf-8")
        known = [*BUDGETS, *list_budgets(text)]
        if budget and budget not in known:
            raise ValueError(f"there is no budget {shorten(budget)}, expected one of {', '.join(known)}")
        data = read_tables(text, changes, budget)
        return make_subject_recipe(data) if SUBJECT in data else make_curriculum(data)
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be used: {error}.") from None


def scale_recipe(recipe: SubjectRecipe, share: float) -> SubjectRecipe:
    return replace(recipe, curriculum=scale_curriculum(recipe.curriculum, share))
