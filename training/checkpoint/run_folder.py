"""The folder of a run: what it is of, the bank it began with, and files that are there whole or not at all."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ...prw.bank.bank import Bank
from ...prw.base_model import Base
from ...prw.files.atomic_write import PART, atomic_write
from ..distributed import ranks
from ..recipes.curriculum import Curriculum, Settings, Stage
from .checkpoints import TrainingError

BANK, START, RUN = "bank.safetensors", "start", "run.json"
FREE = (
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
)
"""Settings that may change between two parts of a run."""
YOUNG = ("time_phases", "patience", "shared", "features", "encoder", "feature_size", "feature_weight", "base_weights")
"""What recipes have only lately: runs from before it go on."""


@dataclass(frozen=True)
class RunFolder:
    out: Path

    def stage(self, label: str) -> Path:
        return self.out / "stages" / f"{label}.safetensors"

    def begun(
        self, curriculum: Curriculum, seed: int, base: Base, bank: Bank | None, more: Sequence = ()
    ) -> Bank | None:
        """The bank that the first stage is given, kept here so that the run goes on without being told again.

        Refuses what belongs to another run; `more` is what else decides its result.
        """
        if bank is not None and (refusal := bank.info.base.refusal(base)):
            raise TrainingError(refusal)
        mine, start = {"recipe": fingerprint(curriculum, seed, more), "base": asdict(base)}, self.stage(START)
        with ranks.first_alone():
            if (self.out / RUN).exists():
                bank = self._known(mine, start, bank)
            elif ranks.rank() == 0:
                if bank is not None:
                    bank.save(start)
                self.note(RUN, mine)
            else:
                raise TrainingError(
                    f"{self.out} of process {ranks.rank()} is not the folder that process 0 writes to: give all nodes "
                    f"one shared folder with --out."
                )
        if ranks.rank() == 0:
            self._clear()
        return bank

    def _known(self, mine: dict, start: Path, bank: Bank | None) -> Bank | None:
        self._refuse_other(mine)
        known = Bank.open(start) if start.exists() else None
        if bank is not None and (known is None or not equal(bank, known)):
            raise TrainingError(
                f"The run in {self.out} did not begin with this bank: give it the one that it began with, or choose another "
                f"folder."
            )
        return known

    def _refuse_other(self, mine: dict) -> None:
        try:
            theirs = json.loads((self.out / RUN).read_text(encoding="utf-8"))
            base, found = (Base(**{**each, "probe": tuple(each["probe"])}) for each in (theirs["base"], mine["base"]))
            # the probe not to the last bit: a run may go on on another device
            same = theirs["recipe"] == mine["recipe"] and not base.refusal(found) and not base.doubt(found)
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise TrainingError(
                f"The folder {self.out} holds a run of another recipe, seed, base or other pictures: choose another folder, "
                f"or delete this one."
            )

    def _clear(self) -> None:
        """What a kill left half written."""
        for folder in (self.out, *(self.out / name for name in ("stages", "samples", "lessons", "features"))):
            for stray in folder.glob(f".*{PART}"):
                stray.unlink(missing_ok=True)

    def note(self, name: str, data) -> None:
        try:
            with atomic_write(self.out / name) as partial:
                partial.write_text(json.dumps(data), encoding="utf-8")
        except OSError as error:
            raise TrainingError(
                f"{name} cannot be written into {self.out} ({error.strerror}): make room or choose another folder."
            ) from None


def equal(one: Bank, other: Bank) -> bool:
    return one.info == other.info and all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def decided(part: Stage | Settings) -> dict[str, Any]:
    """Its fields; what runs of old had not only where it does something."""
    fresh = {field.name: field.default for field in fields(part) if field.name in YOUNG}
    return {name: value for name, value in asdict(part).items() if name not in fresh or value != fresh[name]}


def fingerprint(curriculum: Curriculum, seed: int, more: Sequence = ()) -> str:
    """Of everything that decides the result."""
    settings = {key: value for key, value in decided(curriculum.settings).items() if key not in FREE}
    stages = [decided(stage) for stage in curriculum.stages]
    sets = [curriculum.data] if curriculum.data else []  # runs of old had none
    decides = json.dumps([settings, stages, curriculum.toy, seed, *sets, *more], default=str)
    return hashlib.blake2b(decides.encode(), digest_size=16).hexdigest()
