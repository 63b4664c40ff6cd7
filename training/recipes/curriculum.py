"""The curriculum: stages (stage.py) and what they share (settings.py), as data (paper, Table 1 and section 3.1).

"Step" has three meanings around here. In this code the paper's curriculum step is a Stage, an optimizer
update is an iteration, and sampler steps stay the host's.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...prw.files.validate import build, check_range, check_type, shorten
from .read_recipe import WORLD_TABLES, read_tables
from .settings import Settings
from .stage import Stage, build_stage

RECIPES = Path(__file__).parent
SUBJECT = "subject"
"""The one recipe among them that is no curriculum (subject.py)."""
BUDGETS = {"tiny": 0.01, "small": 0.1, "full": 1.0}
"""Shares of a recipe's iterations; a recipe can have budgets of its own (read_recipe.py)."""


@dataclass(frozen=True)
class Curriculum:
    """A recipe: settings, stages in their order, and where base and data come from."""

    settings: Settings
    stages: tuple[Stage, ...]
    base: str = ""
    """"toy" or "world": one that a program draws; else a file of FLUX.1 or FLUX.2 (with [encoders]). A node brings its own."""
    toy: dict[str, Any] = field(default_factory=dict)
    """The toy world's own recipe (from_scratch/recipe.py)."""
    world: dict[str, Any] = field(default_factory=dict)
    """The sticker world's."""
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Where the sets that stages name lie, and how they are read (data/sets)."""
    encoders: dict[str, Any] = field(default_factory=dict)
    """Files of the base's text encoders and VAE (encoders/)."""

    def __post_init__(self):
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"the stages are named {shorten(names)}, expected one or more, each once")
        if self.settings.ahead and not any(stage.ceiling for stage in self.stages):
            raise ValueError('ahead is true, but no stage has iterations = "auto": give one, or set ahead to false')
        for i, stage in enumerate(self.stages):
            tasks = list(dict.fromkeys(each.task for each in self.stages[:i] if each.task != stage.task))
            if unknown := [task for task in stage.replay_from if task not in tasks]:
                raise ValueError(
                    f"{stage.name}.replay_from names {shorten(unknown[0])}, expected tasks of earlier stages"
                    f" ({', '.join(tasks) or 'there is none'})"
                )

    @property
    def own_base(self) -> dict[str, Any]:
        """The table of a base that is trained from nothing."""
        return getattr(self, self.base) if self.base in WORLD_TABLES else {}

    def experts(self, stage: str) -> tuple[str, ...]:
        """Lists the columns of a stage's router: every expert trained so far that no other adds to, its own last."""
        names = [each.name for each in self.stages]
        stages = self.stages[: names.index(stage) + 1]
        parents = {each.parent for each in stages}
        return tuple(each.name for each in stages if each.name not in parents)


def list_recipes() -> list[str]:
    """Lists the built-in curricula by name."""
    return sorted(path.stem for path in RECIPES.glob("*.toml") if path.stem != SUBJECT)


def load_curriculum(name: str | os.PathLike, changes: Sequence[str] = ()) -> Curriculum:
    """Loads a TOML file, or a built-in recipe by its name; a sixth stage is a sixth table.
    `changes`: read_recipe.py."""
    path = find_recipe(name)
    return parse_curriculum(path.read_text(encoding="utf-8"), path.name, changes)


def find_recipe(name: str | os.PathLike) -> Path:
    path, known = Path(name), [*list_recipes(), SUBJECT]
    if str(name) in known or (not path.exists() and str(name).removesuffix(".toml") in known):
        path = RECIPES / f"{str(name).removesuffix('.toml')}.toml"
    if not path.is_file():
        raise FileNotFoundError(f"There is no recipe {shorten(name)}: give a TOML file or one of {', '.join(known)}.")
    return path


def parse_curriculum(text: str, name: str, changes: Sequence[str] = ()) -> Curriculum:
    """Parses a recipe's text; `name` is for the sentence, if it cannot be used."""
    try:
        return make_curriculum(read_tables(text, changes))
    except ValueError as error:
        raise ValueError(f"{name} cannot be used: {error}.") from None


def make_curriculum(data: dict[str, Any]) -> Curriculum:
    tables = ("stages", "base", *WORLD_TABLES, "data", "encoders")
    shared = {key: value for key, value in data.items() if key not in tables}
    listed = check_type("stages", data.get("stages", []), list)
    stages = tuple(build_stage(table, f"stage {i + 1}") for i, table in enumerate(listed))
    base = check_type("base", data.get("base", ""), str)
    worlds = {name: check_type(name, data.get(name, {}), dict) for name in WORLD_TABLES}
    sets = {
        name: check_type(f"data.{name}", table, dict)
        for name, table in check_type("data", data.get("data", {}), dict).items()
    }
    encoders = check_type("encoders", data.get("encoders", {}), dict)
    return Curriculum(build(Settings, shared, "the recipe"), stages, base, data=sets, encoders=encoders, **worlds)


def scale_curriculum(curriculum: Curriculum, share: float) -> Curriculum:
    """Scales a curriculum to a share of its iterations, at least one a stage."""
    check_range("share", share, 1e-6, 1000)

    def scale(count: int) -> int:
        return max(1, round(count * share))

    stages = [
        replace(stage, iterations=scale(stage.iterations), ceiling=stage.ceiling and scale(stage.ceiling))
        for stage in curriculum.stages
    ]
    settings = curriculum.settings
    if any(stage.ceiling for stage in stages):
        settings = replace(settings, check_every=scale(settings.check_every))
    return replace(curriculum, stages=tuple(stages), settings=settings)
