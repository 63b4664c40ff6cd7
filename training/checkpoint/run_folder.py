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

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch

from ...prw.bank.bank import Bank
from ...prw.bank.shapes import list_expert_keys
from ...prw.base_model import Base
from ...prw.files.atomic_write import PART, atomic_write
from ..distributed import ranks
from ..recipes.curriculum import Curriculum, Stage
from .checkpoints import TrainingError
from .run_record import Change, Knobs, describe_changes, list_changes, make_record

LOG = logging.getLogger(__name__)
BANK, START, RUN = "bank.safetensors", "start", "run.json"
DATASETS_FOLDER = "lessons"
LENGTH_CHANGED = (
    "%s: what is done stays, rates and whatever else follows a stage's course are spread over the new length."
)


@dataclass
class RunFolder:
    path: Path
    knobs: Knobs = field(default_factory=Knobs)
    record: str = field(default="", init=False)
    """run.json's text since this run began or went on."""

    def stage_path(self, label: str) -> Path:
        return self.path / "stages" / f"{label}.safetensors"

    def begin(
        self, curriculum: Curriculum, seed: int, base: Base, bank: Bank | None, more: Mapping[str, Any] | None = None
    ) -> Bank | None:
        """Begins or goes on; returns the bank that the first stage is given, which is kept here.

        Refuses what belongs to another run; `more` is what else decides its result.
        """
        if bank is not None and (problem := bank.info.base.describe_incompatibility(base)):
            raise TrainingError(problem)
        record = make_record(curriculum, seed, base, more or {})
        with ranks.main_process_first():
            if (self.path / RUN).exists():
                bank = self._go_on(record, bank)
            elif ranks.rank() == 0:
                self._begin_anew(record, bank)
            else:
                raise TrainingError(
                    f"{self.path} of process {ranks.rank()} is not the folder that process 0 writes to: give all nodes "
                    f"one shared folder with --out."
                )
            self.record = (self.path / RUN).read_text(encoding="utf-8")
        if ranks.rank() == 0:
            self._clear_partial()
        return bank

    def _begin_anew(self, record: dict[str, Any], bank: Bank | None) -> None:
        self.refuse_unrecorded()
        start = self.stage_path(START)
        if bank is not None:
            bank.save(start)
        elif start.exists():
            start.unlink()  # of a run that was killed before it began
        self.write_json(RUN, record)

    def refuse_unrecorded(self) -> None:
        """Refuses a folder of trained weights of which nothing says what they are of."""
        if (self.path / RUN).exists():
            return
        found = [
            path for folder in ("", "stages", "checkpoints") for path in (self.path / folder).glob("*.safetensors")
        ]
        if found := sorted(path for path in found if path != self.stage_path(START)):
            raise TrainingError(
                f"The folder {self.path} holds {found[0].relative_to(self.path)}, but no {RUN} that says what it was trained "
                f"on: move it away, or {self.knobs.elsewhere}."
            )

    def _go_on(self, record: dict[str, Any], bank: Bank | None) -> Bank | None:
        kept = self._read_record(record)
        start = self.stage_path(START)
        known = Bank.open(start) if start.exists() else None
        if bank is not None and (known is None or not is_equal(bank, known)):
            raise TrainingError(
                f"The run in {self.path} did not begin with this bank: give it the one that it began with, or "
                f"{self.knobs.elsewhere}."
            )
        if kept["recipe"] != record["recipe"] and ranks.rank() == 0:  # only lengths have changed
            self.write_json(RUN, {**record, "base": kept["base"]})
        return known

    def _read_record(self, record: dict[str, Any]) -> dict[str, Any]:
        """Reads run.json; refuses it where it is of another run."""
        try:
            kept = json.loads((self.path / RUN).read_text(encoding="utf-8"))
            base, own = _read_base(kept["base"]), _read_base(record["base"])
            # the probe not to the last bit: a run may go on on another device
            same_base = not base.describe_incompatibility(own) and not base.describe_difference(own)
            same, was = kept["recipe"] == record["recipe"], kept.get("settings", {})
            changes = [] if same or not was else list_changes(was, record["settings"])
        except (ValueError, KeyError, TypeError, AttributeError):
            same_base, same, was, changes, kept = False, False, {}, [], {}
        if not (same_base and (same or changes)):
            self._refuse_other(was, same_base, changes)
        self._check_changes(changes)
        return kept

    def _refuse_other(self, was: Any, same_base: bool, changes: Sequence[Change]) -> NoReturn:
        if was and not same_base:
            what = "a run on another base or other weights of it"
        else:
            what = "a run of another recipe, seed, base or other pictures"
        raise TrainingError(f"The folder {self.path} holds {what}: {self.knobs.elsewhere}, or delete this one.")

    def _check_changes(self, changes: Sequence[Change]) -> None:
        """Says which stages get another length; refuses every other change by its name."""
        if others := [change for change in changes if not change.is_length]:
            raise TrainingError(
                f"The run in {self.path} began with other settings ({describe_changes(others, self.knobs)}): set them "
                f"back, or {self.knobs.elsewhere}."
            )
        if changes and ranks.rank() == 0:
            LOG.info(LENGTH_CHANGED, describe_changes(changes, self.knobs))

    def is_present(self) -> bool:
        """Says whether this is still the folder in which the run began or went on; True before it has."""
        try:
            return not self.record or (self.path / RUN).read_text(encoding="utf-8") == self.record
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # a disk that does not answer for a moment

    def check_present(self) -> None:
        if ranks.rank() == 0 and not self.is_present():
            raise TrainingError(
                f"The folder {self.path} was deleted, emptied or begun anew while its run trained: the run has ended, start "
                f"it again, or {self.knobs.elsewhere}."
            )

    def _clear_partial(self) -> None:
        """Deletes what a kill left half written."""
        for folder in (self.path, *(self.path / name for name in ("stages", "samples", DATASETS_FOLDER, "features"))):
            for stray in folder.glob(f".*{PART}"):
                stray.unlink(missing_ok=True)

    def write_json(self, name: str, data: Any) -> None:
        try:
            with atomic_write(self.path / name) as partial:
                partial.write_text(json.dumps(data), encoding="utf-8")
        except OSError as error:
            raise TrainingError(
                f"{name} cannot be written into {self.path} ({error.strerror}): make room or {self.knobs.elsewhere}."
            ) from None


def _read_base(values: dict[str, Any]) -> Base:
    fields: dict[str, Any] = {**values, "probe": tuple(values["probe"])}
    return Base(**fields)


def is_equal(one: Bank, other: Bank) -> bool:
    return one.info == other.info and all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def format_label(stage: Stage, number: int) -> str:
    """Formats a stage's part of file names; counted from 1, as people do."""
    return f"{number + 1}-{stage.name}"


def open_stage_bank(path: Path, bank: Bank, stage: Stage) -> Bank:
    """Opens what a stage left; refuses it where one of the earlier stages, which made `bank`,
    was trained only after it."""
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


def count_bank_iterations(path: Path, expert: str) -> int:
    """Counts iterations that an expert in a bank's file has had."""
    info = Bank.open(path).info.experts.get(expert)
    return info.iterations if info else 0
