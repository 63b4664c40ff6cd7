"""PLANS: the experiments on the sticker world, as they are said before anything is trained.

A row is, by task that it is asked for, a curriculum whose last stage is trained for that task: the target stage. Rows branch off:
stages that curricula have in common at their beginning are trained once (run_plans.py). Random numbers follow a stage's
name, so that target stages of all rows begin with the same weights and see the same samples.
A contrast weighs rows by signs: above 0 the claim holds (contrasts.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..recipes.curriculum import Curriculum
from ..recipes.stage import Stage
from .curricula import ALL, CONCEPT, LOCALISATION, MEASURED, change_stages

SUBJECT, EDIT = "subject", "edit"
SHUFFLED = "shuffled"
"""What stages name as their data where it is not the world's samples, but these with answers to other questions."""
CO_TRAINING = "co-training"
THINGS = "things"
"""What a curriculum names as its encoder where it is the one that knows the world's things (world/thing_encoder.py)."""
EACH_ITS_OWN = "a router a task"
ONE_ROUTER, REPLAY, FROZEN = "one router", "one router, replay", "one router, older columns frozen"
BOTH = "concept, localisation"
RECIPE_SHARE = 0.125
"""Of the iterations of recipe world, if nobody says."""
SHARES = (0.25, 0.5, 1.0)
"""Parts of the target stage after which a row is asked."""
WIDER = 5
"""How many times the rank of an expert that stands for five."""
MAP = "map"
"""Whatever measure an answer has: control's is named after the kind of its map."""
MEASURES: Mapping[str, tuple[str, ...]] = {
    "inpaint": ("hit",),
    "ground": ("iou",),
    "control": (MAP,),
    SUBJECT: ("kept", "right"),
    EDIT: ("done", "wrong"),
}
"""By task: what is compared beside the held-out loss; the first, which no copy of the source reaches, stands for all."""
LESS_IS_BETTER = ("wrong", "loss")
Row = Mapping[str, Curriculum]
"""By task."""
Rows = Mapping[str, Row]
"""By name."""


@dataclass(frozen=True)
class Plan:
    """A claim, the rows that test it, and what is compared."""

    claim: str
    tasks: tuple[str, ...]
    make_rows: Callable[[Curriculum], Rows]
    """From the world's own curriculum, at the length that was asked for."""
    contrasts: Mapping[str, Mapping[str, float]]
    """By name, rows and their signs."""
    one_router: tuple[str, ...] = ()
    """Rows that the last router answers, whatever the task; in others each task has its own."""
    paired: tuple[str, ...] = ()
    """Contrasts whose rows share a trained stage that other rows do not have."""


def find_stage(curriculum: Curriculum, name: str) -> Stage:
    return next(stage for stage in curriculum.stages if stage.name == name)


def begin_with(curriculum: Curriculum, *stages: Stage) -> Curriculum:
    """Makes a curriculum of these stages, whose experts begin from nothing; the first one has nobody to leave blocks to."""
    first, *rest = (replace(stage, start="") for stage in stages)
    return replace(curriculum, stages=(replace(first, rho=1.0, veteran=0.0), *rest))


def equal_targets(curriculum: Curriculum) -> Curriculum:
    """Gives subject and edit the same number of iterations: their mean."""
    count = sum(find_stage(curriculum, name).iterations for name in MEASURED) // 2
    stages = [replace(stage, iterations=count) if stage.name in MEASURED else stage for stage in curriculum.stages]
    return replace(curriculum, stages=tuple(stages))


def vary_prefixes(whole: Curriculum) -> Rows:
    """Makes table 5 as 2 x 2: the target stage after concept, localisation, both or none;
    beside them what else "both" has more of."""
    whole = equal_targets(whole)
    concept, localisation = (find_stage(whole, name) for name in (CONCEPT, LOCALISATION))
    sham = tuple(replace(stage, data=(SHUFFLED,)) for stage in (concept, localisation))
    longer = concept.iterations + localisation.iterations
    prefixes = {
        "none": (),
        "concept": (concept,),
        "localisation": (localisation,),
        BOTH: (concept, localisation),
        "shuffled answers": sham,
    }

    def row(
        prefix: tuple[Stage, ...], more: int = 0, whole: Curriculum = whole, rank: int = 0
    ) -> dict[str, Curriculum]:
        targets = {task: find_stage(whole, task) for task in MEASURED}
        return {
            task: begin_with(whole, *prefix, replace(target, iterations=target.iterations + more, rank=rank))
            for task, target in targets.items()
        }

    # AdamW moves each rank as far, and alpha goes along with the rank: what the expert adds grows by the factor at the same rate
    slower = replace(whole, settings=replace(whole.settings, rate=whole.settings.rate / WIDER))

    rows: dict[str, Row] = {name: row(prefix) for name, prefix in prefixes.items()}
    rows["none, as long"] = row((), longer)
    rows["none, as long, five times the rank"] = row((), longer, slower, WIDER * whole.settings.rank)
    together = co_train_tasks(whole)
    rows[CO_TRAINING] = {SUBJECT: together, EDIT: together}
    return rows


def co_train_tasks(whole: Curriculum) -> Curriculum:
    """Trains an expert a task and one free router on all tasks at once, each for as many iterations as its stage has."""
    older = [find_stage(whole, name) for name in (CONCEPT, LOCALISATION, SUBJECT)]
    last = find_stage(whole, EDIT)
    weights = {stage.task: float(stage.iterations) for stage in older}
    total = round(sum(weights.values())) + last.iterations
    brief = [replace(stage, iterations=1, rho=1.0, veteran=0.0) for stage in older]
    mixed = replace(
        last,
        iterations=total - len(older),
        veteran=0.0,
        along=tuple(stage.name for stage in older),
        replay=1 - last.iterations / total,
        replay_from=weights,
    )
    return begin_with(whole, *brief, mixed)


def vary_last_stage(whole: Curriculum) -> Rows:
    """Makes figure 4 as its caption says: four stages in common, and the last with another rho, alpha or rank."""
    *common, last = whole.stages
    changes: dict[str, dict[str, Any]] = {
        **{f"rho {rho}": {"rho": rho} for rho in (0.2, 0.5, 0.8, 0.95, 1.0)},
        **{f"alpha {alpha}": {"veteran": alpha} for alpha in (0.0, 0.1, 2.0)},
        **{f"rank {rank}": {"rank": rank} for rank in (8, 128)},
    }
    return {name: {last.task: begin_with(whole, *common, replace(last, **change))} for name, change in changes.items()}


def vary_features(whole: Curriculum) -> Rows:
    """Makes CoReDi and its relatives in the target stage, after concept and localisation."""
    whole = equal_targets(whole)
    prefix = [find_stage(whole, name) for name in (CONCEPT, LOCALISATION)]

    def row(way: str, encoder: str = "") -> Row:
        forks = {task: begin_with(whole, *prefix, replace(find_stage(whole, task), features=way)) for task in MEASURED}
        return {task: replace(each, settings=replace(each.settings, encoder=encoder)) for task, each in forks.items()}

    ways = {"auxiliary": "auxiliary", "CoReDi": "coredi"}
    of_things = {f"{name}, of things": row(way, THINGS) for name, way in ways.items()}
    return {"plain": row("off"), **{name: row(way) for name, way in ways.items()}, **of_things}


def vary_router(whole: Curriculum) -> Rows:
    """Makes the paper's literal model, one router that every stage trains on, and what could keep older tasks;
    all tasks are asked in the end. The last one's own router is the one router, so of "a router a task" the others are asked."""
    plain = begin_with(whole, *whole.stages)
    mixed, frozen = (change_stages(plain, **change) for change in ({"replay": 0.2}, {"columns": "newest"}))
    rows = {ONE_ROUTER: plain, REPLAY: mixed, FROZEN: frozen}
    return {
        EACH_ITS_OWN: dict.fromkeys(ALL[:-1], plain),
        **{name: dict.fromkeys(ALL, curriculum) for name, curriculum in rows.items()},
    }


PLANS = {
    "table5": Plan(
        "Concept and localisation first, one after the other, help what comes later (Table 5).",
        MEASURED,
        vary_prefixes,
        {
            "concept": {"concept": 0.5, BOTH: 0.5, "none": -0.5, "localisation": -0.5},
            "localisation": {"localisation": 0.5, BOTH: 0.5, "none": -0.5, "concept": -0.5},
            "concept x localisation": {BOTH: 1, "none": 1, "concept": -1, "localisation": -1},
            "both, against none as long": {BOTH: 1, "none, as long": -1},
            "both, against shuffled answers": {BOTH: 1, "shuffled answers": -1},
            "both, against co-training": {BOTH: 1, CO_TRAINING: -1},
            "both, against five times the rank": {BOTH: 1, "none, as long, five times the rank": -1},
        },
        (CO_TRAINING,),
        paired=("concept",),
    ),
    "figure4": Plan(
        "In the last stage a rho of 0.8, an alpha of 0.5 and a rank between the extremes are best (Figure 4).",
        (EDIT,),
        vary_last_stage,
        {
            **{f"rho 0.8, against {rho}": {"rho 0.8": 1, f"rho {rho}": -1} for rho in (0.2, 0.5, 0.95, 1.0)},
            **{f"alpha 0.5, against {alpha}": {"rho 0.8": 1, f"alpha {alpha}": -1} for alpha in (0.0, 0.1, 2.0)},
            **{f"rank 32, against {rank}": {"rho 0.8": 1, f"rank {rank}": -1} for rank in (8, 128)},
        },
    ),
    "features": Plan(
        "What is learned along with an encoder's features is learned better (CoReDi).",
        MEASURED,
        vary_features,
        {
            f"{way}, against plain": {way: 1, "plain": -1}
            for way in ("auxiliary", "CoReDi", "auxiliary, of things", "CoReDi, of things")
        },
    ),
    "forgetting": Plan(
        "A stage that trains the one router on makes older tasks worse; a router a task cannot.",
        ALL,
        vary_router,
        {
            f"{EACH_ITS_OWN}, against one": {EACH_ITS_OWN: 1, ONE_ROUTER: -1},
            "replay, against none": {REPLAY: 1, ONE_ROUTER: -1},
            "older columns frozen, against not": {FROZEN: 1, ONE_ROUTER: -1},
        },
        (ONE_ROUTER, REPLAY, FROZEN),
        paired=(f"{EACH_ITS_OWN}, against one",),
    ),
}
