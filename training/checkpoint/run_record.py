"""What run.json says of a run: its base, the settings that decide its result, and a hash of these.

    {"recipe": hash, "base": {...}, "settings": {"rank": 32, ..., "stages": {NAME: {"iterations": 1000, ...}}, "seed": 0}}

The settings are there to be named: runs from before they were kept have the hash alone.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, NamedTuple

from ...prw.base_model import Base
from ...prw.files.plain_data import to_plain
from ...prw.files.validate import shorten
from ..recipes.curriculum import Curriculum, Settings, Stage

CHANGEABLE = (
    "micro",
    "checkpointing",
    "compile",
    "shard",
    "offload",
    "save_every",
    "keep",
    "validate_every",
    "sample_every",
    "sample_steps",
    "unlabelled",
    "sample_cfg",
)
"""Settings that may change between two parts of a run."""
LATER_FIELDS = (
    "time_phases",
    "patience",
    "shared",
    "parent",
    "features",
    "encoder",
    "feature_size",
    "feature_weight",
    "feature_loss",
    "base_weights",
    "route",
    "source_time",
    "replay_from",
    "ceiling",
    "check_every",
    "standstill",
    "tolerance",
    "usage_band",
    "ahead",
    "stage_seeds",
    "columns",
)
"""Fields that recipes have only lately: runs from before them go on."""
LATER_OF_STAGES = ("rank",)
"""The same of a stage alone: settings have a field of that name from the first."""
MAX_TEXT_LENGTH, MAX_LIST_LENGTH = 200, 40
"""Characters of a value that is kept as it is; of what is longer, such as all samples' names, a hash."""
HASH = "hash "
NAMED = 6
"""Changed settings that a sentence names."""


@dataclass(frozen=True)
class Knobs:
    """What a person turns where a run is begun: in the terminal, or in a node (comfyui/run.py)."""

    elsewhere: str = "choose another folder with --out"
    names: Mapping[str, str] = field(default_factory=dict)
    """Settings that are called otherwise there."""


class Change(NamedTuple):
    """A setting that is no longer what a run began with; None: it was, or is, not set."""

    path: tuple[str, ...]
    was: Any
    now: Any

    @property
    def is_length(self) -> bool:
        """Whether a stage that has a fixed length now gets another."""
        of_stage, name = len(self.path) == 3 and self.path[0] == "stages", self.path[-1]
        return of_stage and (name == "iterations" or (name == "ceiling" and not self.now))

    def describe(self, knobs: Knobs) -> str:
        name = ".".join(dict.fromkeys(self.path)).removeprefix("stages.")
        name = knobs.names.get(name, name)
        if any(str(value).startswith(HASH) for value in (self.was, self.now)):
            return f"{name} not the same"
        was, now = ("not set" if value is None else shorten(value) for value in (self.was, self.now))
        return f"{name} was {was}, is {now}"


def make_record(curriculum: Curriculum, seed: int, base: Base, more: Mapping[str, Any]) -> dict[str, Any]:
    """Makes run.json's contents; `more` is what else decides the result, by names that people understand."""
    settings = list_settings(curriculum, seed, more)
    return {"recipe": fingerprint(curriculum, seed, [*more.values()]), "base": to_plain(base), "settings": settings}


def list_settings(curriculum: Curriculum, seed: int, more: Mapping[str, Any]) -> dict[str, Any]:
    """Lists everything that decides the result, ready for JSON."""
    own = {name: value for name, value in list_deciding(curriculum.settings).items() if name not in CHANGEABLE}
    stages = {stage.name: list_deciding(stage) for stage in curriculum.stages}
    order = [stage.name for stage in curriculum.stages]
    world = {"world": curriculum.world} if curriculum.world else {}  # runs of old had none
    data = {"toy": curriculum.toy, **world, "data": curriculum.data, "seed": seed, **more}
    return _shorten_values(json.loads(json.dumps({**own, "stages": stages, "order": order, **data}, default=str)))


def _shorten_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shorten_values(part) for name, part in value.items()}
    text, max_length = json.dumps(value), MAX_LIST_LENGTH if isinstance(value, list) else MAX_TEXT_LENGTH
    return value if len(text) <= max_length else f"{HASH}{_hash(text)}"


def list_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Lists the settings in which two runs differ, in the recipe's order."""
    old, new = dict(_flatten(was)), dict(_flatten(now))
    paths = [path for path in {**old, **new} if path[0] not in CHANGEABLE]
    return [Change(path, old.get(path), new.get(path)) for path in paths if old.get(path) != new.get(path)]


def describe_changes(changes: Sequence[Change], knobs: Knobs) -> str:
    named = [change.describe(knobs) for change in changes[:NAMED]]
    rest = [f"{len(changes) - NAMED} more"] if len(changes) > NAMED else []
    return ", ".join([*named, *rest])


def _flatten(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, (*path, name))
        else:
            yield (*path, name), value


def list_deciding(part: Stage | Settings) -> dict[str, Any]:
    """Lists its fields; later ones only where they differ from their defaults."""
    later = LATER_FIELDS + (LATER_OF_STAGES if isinstance(part, Stage) else ())
    fresh = {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(part)
        if field.name in later
    }
    return {name: value for name, value in asdict(part).items() if name not in fresh or value != fresh[name]}


def fingerprint(curriculum: Curriculum, seed: int, more: Sequence = ()) -> str:
    """Hashes everything that decides the result."""
    settings = {key: value for key, value in list_deciding(curriculum.settings).items() if key not in CHANGEABLE}
    stages = [list_deciding(stage) for stage in curriculum.stages]
    sets = [part for part in (curriculum.world, curriculum.data) if part]  # runs of old had none
    decides = json.dumps([settings, stages, curriculum.toy, seed, *sets, *more], default=str)
    return _hash(decides)


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
