"""Says for a run's report what drew the HED and line art that it was trained on: networks, or classical code."""

from collections.abc import Sequence

from ..data.encoded.cache_index import ABOUT, cache_folder, read_json
from ..data.encoded.cached import AGAIN
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
    path, maker = cache_folder(cache, stage.task, name) / ABOUT, EXAMPLE_MAKERS[stage.task]
    try:
        record = read_json(path)
        (reader, knobs), maps = record["set"], record.get("maps", {})
        if reader.startswith(f"{OwnFolder.__name__}("):
            return ""
        named = knobs.get("kinds") or _list_usual_kinds(curriculum.data[name].get("set") or name, maker.kinds)
        return describe_drawers(named, maps)
    except (KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{path} does not say what was cached, expected what cologen data cache wrote: {AGAIN}."
        ) from None


def _list_usual_kinds(name: str, kinds: Sequence[str]) -> Sequence[str]:
    """Lists the maps that the paper takes from a set; all, where it takes none or the set is not known by its name."""
    known = DATASETS[name].kinds if name in DATASETS else ()
    return [kind for kind in known if kind in kinds] or kinds


def _can_draw(stage: Stage) -> bool:
    maker = EXAMPLE_MAKERS.get(stage.task)
    return maker is not None and any(kind in NETWORKS for kind in maker.kinds)
