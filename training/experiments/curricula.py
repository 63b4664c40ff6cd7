"""EXPERIMENTS: the paper's, as tables of curricula for the toy world, where every answer can be measured.

All rows of an experiment are trained from the same base on the same samples for the same number of iterations in all,
with several seeds, and asked the same questions (run_curricula.py). In LENGTH that number is the most there may be.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..recipes.curriculum import Curriculum
from ..recipes.open_lengths import open_lengths

Rows = Mapping[str, Curriculum]
"""By name."""
CONCEPT, LOCALISATION = "inpaint", "ground"
"""The stages that the paper calls R_c and R_l."""
FORGETTING, LENGTH = "forgetting", "auto"
CHECKS = 4
"""Checks of the shortest stage, if it does not end by itself: as many as recipe toy has at its full budget."""
ALL = ("inpaint", "ground", "control", "subject", "edit")
MEASURED = ("subject", "edit")
"""The tasks that the paper's ablations measure."""
TOY_FEATURES = 16
"""Kept of the 64 channels that a token of the toy world has."""
HELD_OUT = 10**7
"""Added to an experiment's seeds, so that its questions are neither those of training nor those of `cologen eval`."""


@dataclass(frozen=True)
class Experiment:
    """A claim and the curricula that test it."""

    claim: str
    """What the paper says, or wishes for."""
    rows: Callable[[Curriculum], Rows]
    """Makes the rows of the toy curriculum."""
    tasks: tuple[str, ...] = MEASURED
    """Which are asked for."""
    shared_stages: int = 0
    """Stages in which no row differs from the first: that trains them for all."""
    feature_weights: Mapping[str, float] = field(default_factory=dict)
    """Rows whose pictures are sampled along with their features, and the features' weight."""


def start_afresh(curriculum: Curriculum) -> Curriculum:
    """Lets every expert begin anew, as the paper's do: a row may lack the experts that the recipe's stages copy."""
    return replace(curriculum, stages=tuple(replace(stage, start="") for stage in curriculum.stages))


def drop_stages(curriculum: Curriculum, *names: str) -> Curriculum:
    """Leaves stages out and gives their iterations to the others."""
    stages_left = [stage for stage in curriculum.stages if stage.name not in names]
    stretch = count_iterations(curriculum) / sum(stage.iterations for stage in stages_left)
    stages = [replace(stage, iterations=round(stage.iterations * stretch)) for stage in stages_left]
    first = replace(stages[0], rho=1.0, veteran=0.0)  # the first expert has nobody to leave blocks to
    return replace(curriculum, stages=(first, *stages[1:]))


def count_iterations(curriculum: Curriculum) -> int:
    return sum(stage.iterations for stage in curriculum.stages)


def co_train(curriculum: Curriculum) -> Curriculum:
    """Trains all experts and one free router on all tasks at once."""
    *older, last = curriculum.stages
    brief = [replace(stage, iterations=1, rho=1.0, veteran=0.0) for stage in older]
    along = tuple(stage.name for stage in older)
    rest = count_iterations(curriculum) - len(older)
    mixed = replace(last, iterations=rest, veteran=0.0, along=along, replay=len(older) / len(curriculum.stages))
    return replace(curriculum, stages=(*brief, mixed))


def vary_stages(curriculum: Curriculum) -> Rows:
    return {
        "neither": drop_stages(curriculum, CONCEPT, LOCALISATION),
        "localisation only": drop_stages(curriculum, CONCEPT),
        "concept only": drop_stages(curriculum, LOCALISATION),
        "co-training": co_train(curriculum),
        "curriculum": curriculum,
    }


def change_stages(curriculum: Curriculum, **changes: Any) -> Curriculum:
    """Changes fields of every stage but the first, which has no older experts."""
    first, *rest = curriculum.stages
    return replace(curriculum, stages=(first, *(replace(stage, **changes) for stage in rest)))


def vary_rho(curriculum: Curriculum) -> Rows:
    return {f"rho {value}": change_stages(curriculum, rho=value) for value in (0.5, 0.65, 0.8, 0.95)}


def vary_alpha(curriculum: Curriculum) -> Rows:
    return {f"alpha {value}": change_stages(curriculum, veteran=value) for value in (0.0, 0.25, 0.5, 1.0, 2.0)}


def vary_rank(curriculum: Curriculum) -> Rows:
    return {
        f"rank {value}": replace(curriculum, settings=replace(curriculum.settings, rank=value, alpha=2.0 * value))
        for value in (8, 16, 32, 64)
    }


def vary_features(curriculum: Curriculum) -> Rows:
    """Makes twins that differ in nothing but what the measured stages learn of an encoder's features."""
    narrow = replace(curriculum.settings, feature_size=TOY_FEATURES)

    def row(features: str) -> Curriculum:
        stages = [replace(s, features=features) if s.name in MEASURED else s for s in curriculum.stages]
        return replace(curriculum, settings=narrow, stages=tuple(stages))

    ways = {"auxiliary": "auxiliary", "self-conditioned": "self", "CoReDi": "coredi"}
    names = [*ways, *FEATURE_WEIGHTS]
    return {"plain": curriculum, **{name: row(ways[name.split(",")[0]]) for name in names}}


FEATURE_WEIGHTS = {
    "self-conditioned, read": 1.0,
    "self-conditioned, guided": 1.5,
    "CoReDi, read": 1.0,
    "CoReDi, guided": 1.5,
}


def vary_length(curriculum: Curriculum) -> Rows:
    """Checks a stage as often whatever the budget."""
    every = max(1, min(stage.iterations for stage in curriculum.stages) // CHECKS)
    checked = replace(curriculum, settings=replace(curriculum.settings, check_every=every))
    return {
        "fixed": curriculum,
        "auto": open_lengths(checked),
        "auto, ahead": open_lengths(checked, ahead=True),
    }


def keep_curriculum(curriculum: Curriculum) -> Rows:
    return {"curriculum": curriculum}


EXPERIMENTS = {
    "table5": Experiment("Both seeds help, and one after another beats together (Table 5).", vary_stages),
    "rho": Experiment("A share of 0.8 for the newest expert is best (Figure 4).", vary_rho),
    "alpha": Experiment("The veteran loss helps; its weight is 0.5 (Figure 4).", vary_alpha),
    "rank": Experiment("Rank 128 of width 3072 is best (Figure 4).", vary_rank),
    "coredi": Experiment(
        "Experts learn better when they denoise an encoder's features along (CoReDi).",
        vary_features,
        shared_stages=3,
        feature_weights=FEATURE_WEIGHTS,
    ),
    LENGTH: Experiment("Stages that end by themselves need fewer iterations for as much.", vary_length, ALL),
    FORGETTING: Experiment("Frozen experts keep what they know.", keep_curriculum, ALL),
}
