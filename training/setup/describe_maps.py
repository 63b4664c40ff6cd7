"""Says for a run's report what drew the HED and line art that it was trained on: networks, or classical code."""

from ..data.encoded.cache_index import ABOUT, cache_folder, read_json
from ..data.sets import DATASETS
from ..data.sets.generic import OwnFolder
from ..data.tasks import EXAMPLE_MAKERS
from ..data.tasks.examples import describe_set_maps
from ..data.tasks.learned_maps import NETWORKS, describe_drawers
from ..recipes.curriculum import Curriculum, Stage
from .stage_data import find_cache, open_stage_dataset
from .worlds import WORLDS


def describe_maps(curriculum: Curriculum) -> list[tuple[str, str, str]]:
    """Names stage, data set and what draws its maps, where any are drawn."""
    named = (
        (stage, name) for stage in curriculum.stages for name in stage.data if name not in WORLDS and _can_draw(stage)
    )
    described = ((stage.name, name, describe_set(curriculum, stage, name)) for stage, name in named)
    return [row for row in described if row[-1]]


def describe_set(curriculum: Curriculum, stage: Stage, name: str) -> str:
    """Describes a set by its cache's record: neither the set nor the networks need be there any more."""
    if not (cache := find_cache(curriculum, name)):
        return describe_set_maps(open_stage_dataset(curriculum, stage, name), stage.task)
    info = DATASETS[curriculum.data[name].get("set") or name]
    if OwnFolder in info.readers:
        return ""
    record, maker = read_json(cache_folder(cache, stage.task, name) / ABOUT), EXAMPLE_MAKERS[stage.task]
    named = record["set"][1].get("kinds") or [kind for kind in info.kinds if kind in maker.kinds]
    return describe_drawers(named or maker.kinds, record.get("maps", {}))


def _can_draw(stage: Stage) -> bool:
    maker = EXAMPLE_MAKERS.get(stage.task)
    return maker is not None and any(kind in NETWORKS for kind in maker.kinds)
