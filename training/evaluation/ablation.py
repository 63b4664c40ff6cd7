"""Whether older experts matter on a benchmark: its measures when what they take goes to the newest expert, or to none."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..from_scratch.evaluate import bootstrap_interval
from .measure import Score
from .metrics import METRICS

ABLATION_HEADS = ("measure", "older experts' blocks go", "then", "change", "95 %", "")


def compare_ablations(
    routed: Sequence[Score], ablated: Mapping[str, Sequence[Score]]
) -> list[tuple[str, str, str, str, str, str]]:
    """Makes the table's lines, in the order of ABLATION_HEADS; `ablated` has the scores of each row of ABLATIONS.

    Cases are paired: the same case, the same noise. Where a metric has no figure for one picture (FID) there is no interval.
    """
    lines = []
    for i, before in enumerate(routed):
        for way, scores in ablated.items():
            after = scores[i]
            if before.reason or after.reason:
                continue
            change, interval, verdict = after.total - before.total, "", ""
            if differences := pair_differences(before, after):
                low, high = bootstrap_interval(np.array(differences))
                interval = f"{low:+.4g} to {high:+.4g}"
                verdict = "a difference" if low > 0 or high < 0 else "no difference that these cases show"
            label = METRICS[before.metric].label
            lines.append((label, f"to {way}", f"{after.total:.4g}", f"{change:+.4g}", interval, verdict))
    return lines


def pair_differences(before: Score, after: Score) -> list[float]:
    """Computes the change of each case, the mean of its pictures;
    empty where the metric has no figure for one picture."""
    by_case: dict[str, list[float]] = {}
    for key in before.values:
        old, new = before.value_of(key), after.value_of(key)
        if old is not None and new is not None:
            by_case.setdefault(key.partition("/")[2], []).append(new - old)
    return [float(np.mean(changes)) for changes in by_case.values()]
