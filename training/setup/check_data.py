"""Looks at what the sets of a recipe give before anything is trained on it: counts, what is wrong, and pictures."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from ..data.sample import Example
from ..data.tasks.examples import ExampleStream
from ..recipes.curriculum import Curriculum, Stage
from .stage_data import TOY, open_stage_source

SHOWN = 6
"""Examples of a set on its task's sheet."""


@dataclass
class SetReport:
    """What a set gave for a stage."""

    stage: Stage
    name: str
    rows: int | None = None
    """In the whole set, if it can tell."""
    seen: int = 0
    examples: int = 0
    kinds: Counter = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    """The first of them."""
    damaged: int = 0
    unfit: int = 0
    trouble: str = ""
    """Why it cannot be used as it is."""
    shown: list[Example] = field(default_factory=list)

    def lines(self) -> list[str]:
        head = f"{self.stage.name:10} {self.name:20} "
        if self.trouble and not self.seen:
            return [head + self.trouble]
        whole = f" of {self.rows}" if self.rows is not None else ""
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items()) if kind)
        parts = [f"{self.seen}{whole} read", f"{self.examples} examples" + (f" ({kinds})" if kinds else "")]
        parts += [f"{self.damaged} broken"] * bool(self.damaged)
        parts += [f"{self.unfit} with nothing for {self.stage.task}"] * bool(self.unfit)
        reasons = [f"{'':32}{id}: {why}" for id, why in self.broken.items()]
        return [head + ", ".join(parts), *reasons, *([f"{'':32}{self.trouble}"] if self.trouble else [])]


def check_sets(curriculum: Curriculum, most: int, seed: int = 0) -> Iterator[SetReport]:
    """Set by set; one that is wrong does not keep the others from being looked at."""
    for stage in curriculum.stages:
        for name in stage.data:
            if name != TOY:
                yield check_set(curriculum, stage, name, most, seed)


def check_set(curriculum: Curriculum, stage: Stage, name: str, most: int, seed: int) -> SetReport:
    found = SetReport(stage, name)
    try:
        examples = ExampleStream(
            open_stage_source(curriculum, stage, name), stage.task, curriculum.settings.resolution, seed
        )
    except (ValueError, OSError) as error:
        found.trouble = str(error)
        return found
    tally = examples.stream.counter
    try:
        found.rows = examples.source.reader.count_rows()
        for example in islice(examples.iterate_epoch(), most):
            found.examples += 1
            found.kinds[example.kind] += 1
            if len(found.shown) < SHOWN:
                found.shown.append(example)
        if not found.examples:
            found.trouble = f"There is no example for {stage.task} among {tally.seen} samples: look at the files."
    except (ValueError, OSError) as error:
        found.trouble = str(error)
    found.seen, found.damaged, found.unfit, found.broken = tally.seen, tally.broken, tally.unfit, tally.reasons
    return found
