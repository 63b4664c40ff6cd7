"""A plan in words, before it is run."""

from collections.abc import Iterator

from ..recipes.curriculum import Curriculum
from ..recipes.stage import Stage
from .plans import SHUFFLED, Plan, Row


def describe_plan(plan: Plan, curriculum: Curriculum) -> str:
    """Lists rows and contrasts in Markdown."""
    lines = [plan.claim, "", "| row | stages and their iterations |", "|---|---|"]
    lines += [f"| {name} | {describe_row(row, curriculum)} |" for name, row in plan.make_rows(curriculum).items()]
    lines += ["", "| contrast | rows and their weights |", "|---|---|"]
    for name, weights in plan.contrasts.items():
        lines.append(f"| {name} | " + "; ".join(f"{weight:+g} {row}" for row, weight in weights.items()) + " |")
    return "\n".join(lines)


def describe_row(row: Row, curriculum: Curriculum) -> str:
    """Gives "inpaint 120, ground 420, then subject 420 or edit 420 (rho 0.8, alpha 0.5)"; `curriculum` is the world's own."""
    settings = next(iter(row.values())).settings
    *common, _ = next(iter(row.values())).stages
    before, last = [describe_stage(stage) for stage in common], [fork.stages[-1] for fork in row.values()]
    targets = " or ".join(dict.fromkeys(describe_stage(stage) for stage in last))
    knobs = [f"rho {last[0].rho:g}", f"alpha {last[0].veteran:g}", *describe_knobs(last[0])]
    if settings.rate != curriculum.settings.rate:
        knobs.append(f"rate {settings.rate:g}")
    if settings.encoder:
        knobs.append(f"of the encoder of {settings.encoder}")
    return f"{', '.join([*before, f'then {targets}' if before else targets])} ({', '.join(knobs)})"


def describe_knobs(stage: Stage) -> Iterator[str]:
    """Names what differs from most rows."""
    if stage.rank:
        yield f"rank {stage.rank}"
    if stage.replay and not stage.along:
        yield f"replay {stage.replay:g}"
    if stage.columns != "all":
        yield f"{stage.columns} column alone"


def describe_stage(stage: Stage) -> str:
    shuffled = f", answers {SHUFFLED}" if stage.data == (SHUFFLED,) else ""
    along = f" at once with {describe_mixture(stage)} of its samples" if stage.along else ""
    features = f" with features ({stage.features})" if stage.features != "off" else ""
    return f"{stage.name} {stage.iterations}{shuffled}{along}{features}"


def describe_beginning(curriculum: Curriculum) -> str:
    """Gives "inpaint 60, ground 210 (replay 0.2)"."""
    stages = ", ".join(describe_stage(stage) for stage in curriculum.stages)
    knobs = ", ".join(describe_knobs(curriculum.stages[-1]))
    return f"{stages} ({knobs})" if knobs else stages


def describe_mixture(stage: Stage) -> str:
    total = sum(stage.replay_from.values())
    return ", ".join(f"{stage.replay * weight / total:.0%} {task}" for task, weight in stage.replay_from.items())
