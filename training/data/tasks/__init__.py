"""The tasks as data (paper, section 2.3): from a sample to a source, a prompt and a target.

EXAMPLE_MAKERS has all that data needs to know of a task: another task is a row here and a row in prw/tasks.py.
"""

from collections.abc import Callable
from typing import NamedTuple

from ....prw.tasks import TASKS
from ..sample import Example, Pair, Sample, Triple
from .control import MAP_DRAWERS, make_control_example
from .folder_layouts import HOLE, LAYOUTS, FolderLayout
from .ground import FORMS, OLD_FORMS, PAPER_FORMS, make_ground_example
from .inpaint import make_inpaint_example
from .pairs import make_edit_example, make_subject_example


class ExampleMaker(NamedTuple):
    """How a task's examples are made."""

    takes: type
    """What a data set must yield for it: Sample, Pair or Triple."""
    make: Callable[..., Example]
    """Makes an example of a random generator, what was taken and cropped, and the kinds to choose from (none: the usual)."""
    kinds: tuple[str, ...] = ()
    """All varieties that it has."""
    usual: tuple[str, ...] = ()
    """Those that are made where nothing else is said; none: all."""
    once_usual: tuple[str, ...] = ()
    """What was usual in an earlier version, whose caches do not say so."""
    wants_things: bool = False
    """Whether most of its kinds are made of a sample's things, though it does without."""
    layout: FolderLayout | None = None
    """How a folder of one's own holds it; None: as all tasks do whose source lies there."""


EXAMPLE_MAKERS = {
    "inpaint": ExampleMaker(Sample, make_inpaint_example, wants_things=True, layout=HOLE),
    "ground": ExampleMaker(Sample, make_ground_example, tuple(FORMS), PAPER_FORMS, OLD_FORMS),
    "control": ExampleMaker(Sample, make_control_example, tuple(MAP_DRAWERS)),
    "subject": ExampleMaker(Pair, make_subject_example),
    "edit": ExampleMaker(Triple, make_edit_example),
}


def find_layout(task: str) -> FolderLayout:
    return EXAMPLE_MAKERS[task].layout or LAYOUTS[TASKS[task].position]
