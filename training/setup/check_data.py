"""Checks what the data sets of a recipe give, before anything is trained on it: counts, what is wrong, and pictures."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from ..data.sample import Example
from ..data.tasks.examples import ExampleStream, describe_set_maps
from ..recipes.curriculum import Curriculum, Stage
from .check_objects import describe_missing_objects
from .stage_data import open_stage_dataset
from .worlds import WORLDS

SHEET_EXAMPLES = 6
"""Examples of a set on its task's contact sheet."""


@dataclass
class SetReport:
    """What a data set gave for a stage."""

    stage: Stage
    name: str
    rows: int | None = None
    """In the whole set, if they can be counted."""
    seen: int = 0
    """Samples that were read."""
    examples: int = 0
    kinds: Counter = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)
    """The first broken samples: id -> why."""
    broken: int = 0
    unsuitable: int = 0
    error: str = ""
    """Why it cannot be used as it is."""
    note: str = ""
    """What it cannot do, though it can be used."""
    shown: list[Example] = field(default_factory=list)
    """For the contact sheet."""

    def format_lines(self) -> list[str]:
        head = f"{self.stage.name:10} {self.name:20} "
        if self.error and not self.seen:
            return [head + self.error]
        total = f" of {self.rows}" if self.rows is not None else ""
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items()) if kind)
        parts = [f"{self.seen}{total} read", f"{self.examples} examples" + (f" ({kinds})" if kinds else "")]
        parts += [f"{self.broken} broken"] * bool(self.broken)
        parts += [f"{self.unsuitable} with nothing for {self.stage.task}"] * bool(self.unsuitable)
        reasons = [f"{'':32}{id}: {why}" for id, why in self.reasons.items()]
        return [head + ", ".join(parts), *reasons, *(f"{'':32}{line}" for line in (self.note, self.error) if line)]


def check_sets(curriculum: Curriculum, count: int, seed: int = 0) -> Iterator[SetReport]:
    """Checks set by set, `count` examples each; one that is wrong does not keep the others from being checked."""
    for stage in curriculum.stages:
        for name in stage.data:
            if name not in WORLDS:
                yield check_set(curriculum, stage, name, count, seed)


def check_set(curriculum: Curriculum, stage: Stage, name: str, count: int, seed: int) -> SetReport:
    report = SetReport(stage, name)
    try:
        dataset = open_stage_dataset(curriculum, stage, name)
        examples = ExampleStream(dataset, stage.task, curriculum.settings.resolution, seed)
    except (ValueError, OSError) as error:
        report.error = str(error)
        return report
    notes = (describe_missing_objects(stage, dataset), describe_set_maps(dataset, stage.task))
    report.note = " ".join(f"{note}." for note in notes if note)
    counter = examples.stream.counter
    try:
        report.rows = examples.dataset.reader.count_rows()
        for example in islice(examples.iterate_epoch(), count):
            report.examples += 1
            report.kinds[example.kind] += 1
            if len(report.shown) < SHEET_EXAMPLES:
                report.shown.append(example)
        if not report.examples:
            report.error = f"There is no example for {stage.task} among {counter.seen} samples: look at the files."
    except (ValueError, OSError) as error:
        report.error = str(error)
    report.seen, report.broken, report.unsuitable, report.reasons = (
        counter.seen,
        counter.broken,
        counter.unfit,
        counter.reasons,
    )
    return report
