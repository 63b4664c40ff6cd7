"""The five tasks of the paper (Table 1), in the order in which their experts are trained.

TASKS is the one table of tasks: a sixth is a row here and a row in EXAMPLE_MAKERS (training/data/tasks/__init__.py), which
says how its examples are made; a recipe then names it, and it needs a node only if its inputs are new.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """What the user wants, and how its source image is placed."""

    label: str
    """What a person reads."""
    source: str
    """What the source image shows."""
    position: str
    """"aligned": the source lies over the target; "shifted": beside it (our choice, the paper is silent)."""
    role: str
    """Which seed the expert grows from: "concept", "localisation" or "" for neither (our choice)."""
    node: str = "CoLoGen Source"
    """Which node gives it its source, for sentences."""


TASKS = {
    "inpaint": Task("Inpainting", "the picture with its hole filled grey", "aligned", "concept", "CoLoGen Inpaint"),
    "ground": Task(
        "Grounding", "the picture in which something is to be found", "aligned", "localisation", "CoLoGen Ground"
    ),
    "control": Task("Control map", "edges, depth, lines or a segmentation", "aligned", "", "CoLoGen Control"),
    "subject": Task("Subject reference", "the subject that shall appear", "shifted", "", "CoLoGen Subject"),
    "edit": Task("Instruction editing", "the picture to edit", "aligned", "", "CoLoGen Edit"),
}
