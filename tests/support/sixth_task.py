"""A task and a data set that the pack does not know, added from outside as a fork would: by rows of its tables."""

from dataclasses import dataclass

import numpy as np
from cologen.prw.tasks import TASKS, Task
from cologen.training.data.sample import Example, Sample
from cologen.training.data.sets import DATASETS, DatasetInfo
from cologen.training.data.sets.reader import ListedReader
from cologen.training.data.tasks import EXAMPLE_MAKERS, ExampleMaker

TASK, SET = "deblur", "checks"


def make_deblur_example(rng, sample, kinds=()):
    """The source has half the picture's detail, along both sides or along one."""
    kind = str(rng.choice(kinds or ["both", "across"]))
    source = sample.picture[:, ::2].repeat(2, 1)
    source = source[::2].repeat(2, 0) if kind == "both" else source
    return Example(sample.id, TASK, sample.caption, source, sample.picture, kind)


@dataclass(frozen=True)
class Checks(ListedReader):
    """Chequered pictures, whose numbers stand in a file."""

    PATTERN = "numbers.txt"
    LAYOUT = "numbers.txt"

    def list_entries(self):
        return [(line, int(line)) for line in (self.root / self.PATTERN).read_text().split()]

    def read_entry(self, id, entry):
        ys, xs = np.mgrid[:80, :80] // (3 + entry)
        picture = np.stack([(xs + ys) % 2 * 255] * 3, -1).astype(np.uint8)
        return Sample(id, picture, f"squares of {3 + entry}")


def add_sixth_task(monkeypatch):
    """The two rows of the task, and one of the data set."""
    row = Task("Deblurring", "the picture without its detail", "aligned", "")
    monkeypatch.setitem(TASKS, TASK, row)
    monkeypatch.setitem(EXAMPLE_MAKERS, TASK, ExampleMaker(Sample, make_deblur_example, ("both", "across")))
    monkeypatch.setitem(DATASETS, SET, DatasetInfo((TASK,), (Checks,), "", "free"))
