"""Says before a run which sets bring no objects to a stage that makes most of its examples of them.

JourneyDB's pictures have none before they are labelled. Without them all holes are random, where the paper has 20 % random,
40 % object-shaped and 40 % irregular ones (section 2.3).
"""

import logging

from ..data.sets import OpenDataset
from ..data.tasks import EXAMPLE_MAKERS
from ..recipes.curriculum import Curriculum, Stage
from .stage_data import find_cache, open_stage_dataset
from .worlds import WORLDS

LOG = logging.getLogger(__name__)


def check_objects(curriculum: Curriculum, caches: bool = False) -> None:
    """Warns of sets without objects, or refuses the first of them, as the recipe's `unlabelled` says.

    Sets that are cached were checked when they were; with `caches` they are now.
    """
    for stage in curriculum.stages:
        for name in stage.data:
            if name in WORLDS or (find_cache(curriculum, name) and not caches):
                continue
            problem = describe_missing_objects(stage, open_stage_dataset(curriculum, stage, name))
            if problem and curriculum.settings.unlabelled == "refuse":
                raise ValueError(f'{problem}; or set unlabelled = "warn", and train without them.')
            if problem:
                LOG.warning("%s.", problem)


def describe_missing_objects(stage: Stage, dataset: OpenDataset) -> str:
    """Says why a set can make only random examples of a task whose others are made of objects, or ""."""
    maker = EXAMPLE_MAKERS.get(stage.task)
    if maker is None or not maker.wants_things or dataset.reader.HAS_THINGS or dataset.knobs.labels:
        return ""
    return (
        f"The stage {stage.name} makes random holes alone of {dataset.name}, whose pictures come without objects "
        f"({type(dataset.reader).__name__}), expected object-shaped ones, too, as in the paper: label them by cologen data "
        f"label, and set data.{dataset.name}.labels to the result"
    )
