"""A recipe for one's own subject: a curriculum of one stage, and a table [subject] with what is special about it.

The stage is named like the concept; its `replay` is the share of prior preservation: pictures of the class, told
plainly.
"""

import os
from dataclasses import dataclass, replace
from typing import Any

from ...prw.files.validate import build, check_choice, check_range, check_type, shorten
from ...prw.personalization.concept import BLOCK_KINDS
from .curriculum import SUBJECT, Curriculum, Stage, curriculum_of, recipe_path, scaled
from .read_recipe import tables

OWN, PRIOR = "photos", "prior"
"""The tasks of its lessons."""
SLOT = "{}"
"""Stands for the noun in a caption."""


@dataclass(frozen=True)
class Subject:
    noun: str = "thing"
    """The class, as a prompt says it."""
    caption: str = "photo of a {}"
    """What the photos are told with; the context vectors begin as its other words."""
    photos: str = ""
    """A folder; empty: the built-in world's own."""
    prior: str = ""
    """A folder of pictures of the class, each with its prompt in NAME.txt; empty: the built-in world's."""
    ico: bool = True
    """Image-specific context optimisation: vectors for each photo's own place, pose and light, thrown away in the end."""
    tokens: int = 2
    contexts: int = 4
    token_rate: float = 1.0
    """Of the concept's vectors, in units of `rate`."""
    context_rate: float = 10.0
    where: str = "all"
    """Whose keys and values are bent: "text" (of the double blocks' text alone) or "all" (and the single blocks')."""
    prompts: tuple[str, ...] = ()
    """What samples show."""

    def __post_init__(self):
        if not self.noun.strip() or set("[]{}") & set(self.noun):
            raise ValueError(f"the subject's noun is {shorten(self.noun)!r}, expected a word such as dog")
        if self.caption.count(SLOT) != 1 or set("[]") & set(self.caption):
            raise ValueError(f"the subject's caption is {shorten(self.caption)!r}, expected one {SLOT} for the noun")
        for name, low, high in (("tokens", 1, 256), ("contexts", 1, 256)):
            check_range(f"subject.{name}", getattr(self, name), low, high)
        for name in ("token_rate", "context_rate"):
            check_range(f"subject.{name}", getattr(self, name), 0, 1000)
        check_choice("subject.where", self.where, tuple(BLOCK_KINDS))

    @property
    def told(self) -> str:
        return self.caption.replace(SLOT, self.noun)

    @property
    def marked(self) -> str:
        return self.caption.replace(SLOT, f"[{self.noun}]")


@dataclass(frozen=True)
class SubjectRecipe:
    curriculum: Curriculum
    subject: Subject

    def __post_init__(self):
        if len(self.curriculum.stages) != 1:
            raise ValueError(f"a subject has {len(self.curriculum.stages)} stages, expected one")
        if self.curriculum.settings.text_drop:
            raise ValueError(
                f"text_drop is {self.curriculum.settings.text_drop}, expected 0: a concept is nothing without its noun"
            )

    @property
    def stage(self) -> Stage:
        return self.curriculum.stages[0]


def subject_of(data: dict[str, Any]) -> SubjectRecipe:
    """From a recipe's tables."""
    rest = {"text_drop": 0.0, **{key: value for key, value in data.items() if key != SUBJECT}}
    rest["stages"] = [
        {"task": OWN, **check_type("stages", table, dict)}
        for table in check_type("stages", rest.get("stages", []), list)
    ]
    return SubjectRecipe(curriculum_of(rest), build(Subject, data[SUBJECT], SUBJECT))


def load_recipe(name: str | os.PathLike, changes: tuple[str, ...] = ()) -> Curriculum | SubjectRecipe:
    """A TOML file, or a built-in recipe by its name: of a curriculum, or of one's own subject."""
    path = recipe_path(name)
    try:
        data = tables(path.read_text(encoding="utf-8"), changes)
        return subject_of(data) if SUBJECT in data else curriculum_of(data)
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be used: {error}.") from None


def shortened(recipe: SubjectRecipe, share: float) -> SubjectRecipe:
    return replace(recipe, curriculum=scaled(recipe.curriculum, share))
