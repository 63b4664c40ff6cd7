"""A plan's tables: what its rows reached, and what they differ by."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..from_scratch.evaluate import bootstrap_interval
from ..recipes.curriculum import Curriculum
from .contrasts import Contrast, correct_family, measure_contrasts
from .describe_plan import describe_beginning
from .plans import LESS_IS_BETTER, MAP, MEASURES, SHARES, Plan
from .run_plans import LOSS, Reports

WHOLE = 1.0


def read_measure(report: Mapping[str, Any], share: float, measure: str) -> np.ndarray:
    part = report[str(share)]
    if measure == LOSS:
        return np.array(part[LOSS], float)
    answers = [{MAP: next(iter(score.values()))} if measure == MAP else score for score in part["answers"]]
    return np.array([score[measure] for score in answers if measure in score], float)


def list_measures(reports: Reports, task: str) -> list[str]:
    """Lists the measures of a task that some answers of every seed have, and the loss."""
    seeds = next(forks[task] for forks in reports.values() if task in forks)
    answers = [seed[str(WHOLE)]["answers"] for seed in seeds]
    return [*(name for name in MEASURES[task] if all(has_measure(each, name) for each in answers)), LOSS]


def compare_rows(plan: Plan, reports: Reports) -> dict[tuple[str, str, str], Contrast]:
    """Measures contrasts, by task, measure and contrast: above 0 is better, whatever the measure."""
    found = {}
    for task in plan.tasks:
        for measure in list_measures(reports, task):
            sign = -1.0 if measure in LESS_IS_BETTER else 1.0
            rows = {
                row: [sign * read_measure(report, WHOLE, measure) for report in forks[task]]
                for row, forks in reports.items()
                if task in forks
            }
            asked = {name: weights for name, weights in plan.contrasts.items() if set(weights) <= set(rows)}
            found |= {(task, measure, name): each for name, each in measure_contrasts(rows, asked, plan.paired).items()}
    return found


def format_report(plan: Plan, reports: Reports) -> str:
    """Formats two Markdown tables: what every row reached after each part of its last stage,
    and, of two seeds or more, what rows differ by in the end."""
    lines = [plan.claim, "", *format_rows(plan, reports)]
    if len(next(iter(next(iter(reports.values())).values()))) < 2:
        return "\n".join(lines)
    contrasts = compare_rows(plan, reports)
    deciding = {key: contrast for key, contrast in contrasts.items() if key[1] in (MEASURES[key[0]][:1] + (LOSS,))}
    corrected = correct_family(deciding)
    lines += ["", "| task | measure | contrast | better by | 95 % | p (Holm) | |", "|---|---|---|---|---|---|---|"]
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
            cells = [format_cell(forks[task], share, measure) if task in forks else "" for task, measure in names]
            lines.append(f"| {row} | {share:g} | " + " | ".join(cells) + " |")
    return lines


def format_prefixes(prefixes: Sequence[tuple[Curriculum, list[dict[str, Any]]]]) -> str:
    """Formats a Markdown table: what the stages before the last one have learned of their own tasks."""
    lines = ["| learned before | its last task |", "|---|---|"]
    for curriculum, seeds in prefixes:
        answers = seeds[0][str(WHOLE)]["answers"]
        measures = [each for each in MEASURES[curriculum.stages[-1].task] if has_measure(answers, each)]
        cells = [f"{each} {format_cell(seeds, WHOLE, each)}" for each in measures]
        lines.append(f"| {describe_beginning(curriculum)} | {'; '.join(cells)} |")
    return "\n".join(lines)


def has_measure(answers: Sequence[Mapping[str, float]], measure: str) -> bool:
    return measure == MAP or any(measure in score for score in answers)


def format_cell(seeds: list[dict[str, Any]], share: float, measure: str) -> str:
    groups = [values for report in seeds if len(values := read_measure(report, share, measure))]
    if not groups:  # of few questions, none has it
        return "–"
    low, high = bootstrap_interval(*groups)
    return f"{np.mean([group.mean() for group in groups]):.3f} ({low:.3f} to {high:.3f})"
