"""A plan in words before it is run, and its tables afterwards."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..from_scratch.evaluate import bootstrap_interval
from ..recipes.curriculum import Curriculum
from ..recipes.stage import Stage
from .contrasts import Contrast, correct_family, measure_contrast
from .plans import LESS_IS_BETTER, MAP, MEASURES, SHARES, SHUFFLED, Plan, Row
from .run_plans import LOSS, Reports

WHOLE = 1.0


def describe_plan(plan: Plan, curriculum: Curriculum) -> str:
    """Lists rows and contrasts in Markdown."""
    lines = [plan.claim, "", "| row | stages and their iterations |", "|---|---|"]
    lines += [f"| {name} | {describe_row(row)} |" for name, row in plan.make_rows(curriculum).items()]
    lines += ["", "| contrast | rows and their weights |", "|---|---|"]
    for name, weights in plan.contrasts.items():
        lines.append(f"| {name} | " + "; ".join(f"{weight:+g} {row}" for row, weight in weights.items()) + " |")
    return "\n".join(lines)


def describe_row(row: Row) -> str:
    """Gives "inpaint 120, ground 420, then subject 420 or edit 420 (rho 0.8, alpha 0.5)"."""
    *common, _ = next(iter(row.values())).stages
    before, last = [describe_stage(stage) for stage in common], [curriculum.stages[-1] for curriculum in row.values()]
    targets = " or ".join(dict.fromkeys(describe_stage(stage) for stage in last))
    knobs = [f"rho {last[0].rho:g}", f"alpha {last[0].veteran:g}", *describe_knobs(last[0])]
    if encoder := next(iter(row.values())).settings.encoder:
        knobs.append(f"of the encoder of {encoder}")
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
    along = f" with {', '.join(stage.along)} at once" if stage.along else ""
    features = f" with features ({stage.features})" if stage.features != "off" else ""
    return f"{stage.name} {stage.iterations}{shuffled}{along}{features}"


def read_measure(report: Mapping[str, Any], share: float, measure: str) -> np.ndarray:
    part = report[str(share)]
    if measure == LOSS:
        return np.array(part[LOSS], float)
    answers = [{MAP: next(iter(score.values()))} if measure == MAP else score for score in part["answers"]]
    return np.array([score[measure] for score in answers if measure in score], float)


def list_measures(reports: Reports, task: str) -> list[str]:
    """Lists the measures of a task that its answers have, and the loss."""
    first = next(forks[task] for forks in reports.values() if task in forks)[0][str(WHOLE)]
    had = {MAP, *(name for score in first["answers"] for name in score)}
    return [*(name for name in MEASURES[task] if name in had), LOSS]


def measure_contrasts(plan: Plan, reports: Reports) -> dict[tuple[str, str, str], Contrast]:
    """Measures contrasts, by task, measure and contrast: above 0 is better, whatever the measure."""
    found = {}
    for task in plan.tasks:
        for measure in list_measures(reports, task):
            sign = -1.0 if measure in LESS_IS_BETTER else 1.0
            rows = {
                row: [sign * read_measure(report, WHOLE, measure) for report in forks[task]]
                for row, forks in reports.items()
            }
            for name, weights in plan.contrasts.items():
                found[task, measure, name] = measure_contrast(rows, weights)
    return found


def format_report(plan: Plan, reports: Reports) -> str:
    """Formats two Markdown tables: what every row reached after each part of its last stage,
    and what rows differ by in the end."""
    lines = [plan.claim, "", *format_rows(plan, reports), ""]
    contrasts = measure_contrasts(plan, reports)
    deciding = {key: contrast for key, contrast in contrasts.items() if key[1] in (MEASURES[key[0]][:1] + (LOSS,))}
    corrected = correct_family(deciding)
    lines += ["| task | measure | contrast | better by | 95 % | p (Holm) | |", "|---|---|---|---|---|---|---|"]
    for key, contrast in contrasts.items():
        p = corrected.get(key)
        verdict = ["", ""] if p is None else [f"{p:.3f}", contrast.judge(p)]
        values = [f"{contrast.value:+.4f}", f"{contrast.low:+.4f} to {contrast.high:+.4f}", *verdict]
        lines.append(f"| {' | '.join([*key, *values])} |")
    return "\n".join(lines)


def format_rows(plan: Plan, reports: Reports) -> list[str]:
    names = [(task, measure) for task in plan.tasks for measure in list_measures(reports, task)]
    lines = ["| | after | " + " | ".join(" ".join(name) for name in names) + " |", "|---" * (len(names) + 2) + "|"]
    for row, forks in reports.items():
        for share in SHARES:
            cells = [format_cell(forks[task], share, measure) for task, measure in names]
            lines.append(f"| {row} | {share:g} | " + " | ".join(cells) + " |")
    return lines


def format_cell(seeds: list[dict[str, Any]], share: float, measure: str) -> str:
    groups = [read_measure(report, share, measure) for report in seeds]
    low, high = bootstrap_interval(*groups)
    return f"{np.mean([group.mean() for group in groups]):.3f} ({low:.3f} to {high:.3f})"
