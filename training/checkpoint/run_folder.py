"""The folder of a run: what it is of, the bank it began with, and files that are there whole or not at all.

bank.safetensors           the result so far
stages/N-NAME.safetensors  the bank as it stood after each stage
stages/N-NAME.features.safetensors   what sampling with features needs, where a stage learned them so
stages/start.safetensors   the bank that the first stage was given, if any
checkpoints/               where the running stage can go on
log.jsonl, samples/        what happened
features/                  what an encoder sees in the samples, where a stage asks for it
lessons/                   the stages' encoded datasets, or the names of the cache's shards that they read
run.json                   what this folder is of
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ...prw.bank.bank import Bank
from ...prw.bank.shapes import list_expert_keys
from ...prw.base_model import Base
from ...prw.files.atomic_write import PART, atomic_write
from ...prw.files.plain_data import to_plain
from ..distributed import ranks
from ..recipes.curriculum import Curriculum, Settings, Stage
from .checkpoints import TrainingError

BANK, START, RUN = "bank.safetensors", "start", "run.json"
DATASETS_FOLDER = "lessons"
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
)
"""Fields that recipes have only lately: runs from before them go on."""


@dataclass(frozen=True)
class RunFolder:
    path: Path

    def stage_path(self, label: str) -> Path:
        return self.path / "stages" / f"{label}.safetensors"

    def begin(
        self, curriculum: Curriculum, seed: int, base: Base, bank: Bank | None, more: Sequence = ()
    ) -> Bank | None:
        """Begin or go on; return the bank that the first stage is given, which is kept here.

        Refuses what belongs to another run; `more` is what else decides its result.
        """
        if bank is not None and (problem := bank.info.base.describe_incompatibility(base)):
            raise TrainingError(problem)
        identity, start = (
            {"recipe": fingerprint(curriculum, seed, more), "base": to_plain(base)},
            self.stage_path(START),
        )
        with ranks.main_process_first():
            if (self.path / RUN).exists():
                bank = self._open_start(identity, start, bank)
            elif ranks.rank() == 0:
                if bank is not None:
                    bank.save(start)
                self.write_json(RUN, identity)
            else:
                raise TrainingError(
                    f"{self.path} of process {ranks.rank()} is not the folder that process 0 writes to: give all nodes "
                    f"one shared folder with --out."
                )
        if ranks.rank() == 0:
            self._clear_partial()
        return bank

    def _open_start(self, identity: dict[str, Any], start: Path, bank: Bank | None) -> Bank | None:
        self._check_identity(identity)
        known = Bank.open(start) if start.exists() else None
        if bank is not None and (known is None or not is_equal(bank, known)):
            raise TrainingError(
                f"The run in {self.path} did not begin with this bank: give it the one that it began with, or choose another "
                f"folder."
            )
        return known

    def _check_identity(self, identity: dict[str, Any]) -> None:
        try:
            record = json.loads((self.path / RUN).read_text(encoding="utf-8"))
            base, own = _read_base(record["base"]), _read_base(identity["base"])
            # the probe not to the last bit: a run may go on on another device
            same = (
                record["recipe"] == identity["recipe"]
                and not base.describe_incompatibility(own)
                and not base.describe_difference(own)
            )
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise TrainingError(
                f"The folder {self.path} holds a run of another recipe, seed, base or other pictures: choose another folder, "
                f"or delete this one."
            )

    def _clear_partial(self) -> None:
        """Delete what a kill left half written."""
        for folder in (self.path, *(self.path / name for name in ("stages", "samples", DATASETS_FOLDER, "features"))):
            for stray in folder.glob(f".*{PART}"):
                stray.unlink(missing_ok=True)

    def write_json(self, name: str, data: Any) -> None:
        try:
            with atomic_write(self.path / name) as partial:
                partial.write_text(json.dumps(data), encoding="utf-8")
        except OSError as error:
            raise TrainingError(
                f"{name} cannot be written into {self.path} ({error.strerror}): make room or choose another folder."
            ) from None


def _read_base(values: dict[str, Any]) -> Base:
    fields: dict[str, Any] = {**values, "probe": tuple(values["probe"])}
    return Base(**fields)


def is_equal(one: Bank, other: Bank) -> bool:
    return one.info == other.info and all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def list_deciding(part: Stage | Settings) -> dict[str, Any]:
    """Its fields; those of LATER_FIELDS only where they differ from their defaults."""
    fresh = {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(part)
        if field.name in LATER_FIELDS
    }
    return {name: value for name, value in asdict(part).items() if name not in fresh or value != fresh[name]}


def fingerprint(curriculum: Curriculum, seed: int, more: Sequence = ()) -> str:
    """Hash everything that decides the result."""
    settings = {key: value for key, value in list_deciding(curriculum.settings).items() if key not in CHANGEABLE}
    stages = [list_deciding(stage) for stage in curriculum.stages]
    sets = [curriculum.data] if curriculum.data else []  # runs of old had none
    decides = json.dumps([settings, stages, curriculum.toy, seed, *sets, *more], default=str)
    return hashlib.blake2b(decides.encode(), digest_size=16).hexdigest()


def format_label(stage: Stage, number: int) -> str:
    """A stage's part of file names; counted from 1, as people do."""
    return f"{number + 1}-{stage.name}"


def open_stage_bank(path: Path, bank: Bank, stage: Stage) -> Bank:
    """Open what a stage left; refuse it where one of the earlier stages, which made `bank`, was trained only after it."""
    later = Bank.open(path)
    older = bank.info.experts.keys() - set(stage.along)
    lost = [name for name in older if name not in later.info.experts or not has_same_expert(bank, later, name)]
    if lost:
        raise TrainingError(
            f"{path.name} was trained without {', '.join(sorted(lost))} as it is now: delete it to train its stage again, "
            f"or choose another folder."
        )
    return later


def has_same_expert(one: Bank, other: Bank, expert: str) -> bool:
    return all(torch.equal(one.tensors[key], other.tensors[key]) for key in list_expert_keys(one.info, expert))
