"""What a stopped stage needs to go on, in one safetensors file: written whole or not at all, the last few kept.

There is no random state in it: what iteration k draws follows from the seed and k (data/batch_sampler.py).
"""

import errno
import json
import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...prw.files.atomic_write import PART, atomic_write
from ...prw.files.errors import show_as_ours
from ...prw.files.validate import shorten
from ..distributed import ranks

LOG = logging.getLogger(__name__)
SUFFIX = ".safetensors"
DAMAGED, REMEDY = ".damaged", ": delete it."
KEY, CHECKSUMS = "cologen_training", "cologen_checksums"
SHAPES = "types and shapes"
"""Stands for them among the checksums' names, none of which has a space."""
VERSION = 1
Load = Callable[[dict[str, Tensor], dict[str, Any]], None]
"""Takes a checkpoint's tensors and state."""


@show_as_ours
class TrainingError(RuntimeError):
    """Something a person can act on: one sentence."""


def write_checkpoint(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    try:
        with atomic_write(path) as partial:
            contents = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            text = json.dumps({"version": VERSION, **state})
            save_file(contents, partial, {KEY: text, CHECKSUMS: json.dumps(compute_checksums(contents, text))})
    except (OSError, SafetensorError) as error:
        raise TrainingError(_describe_failure(path, error)) from None


def compute_checksums(tensors: Mapping[str, Tensor], state: str) -> dict[str, int]:
    """Computes the CRC-32 of every tensor's bytes, of the state's text (under no name) and of all types and shapes."""
    sums = {name: zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data) for name, tensor in tensors.items()}
    shapes = repr(sorted((name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors.items()))
    return {**sums, "": zlib.crc32(state.encode()), SHAPES: zlib.crc32(shapes.encode())}


def _describe_failure(path: Path, error: Exception) -> str:
    full = getattr(error, "errno", None) == errno.ENOSPC or "no space" in str(error).lower()
    reason = "the disk is full" if full else shorten(error)
    kept = "the last good one is intact" if any(path.parent.glob(f"*{SUFFIX}")) else "there is none before it"
    return f"The checkpoint could not be written to {path.parent}: {reason}; {kept}: make room there, then resume."


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # a read-only folder: the write said so already


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads the tensors and the state; raises if a bit of them is not as it was written."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata.get(KEY, "null")
        state, sums = json.loads(text), json.loads(metadata.get(CHECKSUMS, "null"))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise TrainingError(f"{path.name} is no checkpoint that can be read ({shorten(error)}){REMEDY}") from None
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise TrainingError(f"{path.name} is no checkpoint of this version: delete it, or use the pack that made it.")
    expected = compute_checksums(tensors, text)
    if isinstance(sums, dict) and SHAPES not in sums:  # those of old had none of the shapes
        del expected[SHAPES]
    if sums is not None and sums != expected:  # and before, none at all
        raise TrainingError(f"{path.name} is not as it was written, a bit or more has changed{REMEDY}")
    return tensors, state


class CheckpointFolder:
    """The checkpoints of one stage: NAME-ITERATION.safetensors."""

    def __init__(self, path: Path, name: str, keep: int):
        self.path, self.name, self.keep = path, name, keep

    def save(self, iteration: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
        path = self.path / f"{self.name}-{iteration:09}{SUFFIX}"
        write_checkpoint(path, tensors, state)
        for old in self.list()[: -self.keep]:
            _discard(old)
        return path

    def list(self) -> list[Path]:
        """Lists the files, oldest first; what a crash left half written has another name and is cleared away."""
        for stray in self.path.glob(f".{self.name}-*{PART}"):
            _discard(stray)
        return sorted(self.path.glob(f"{self.name}-*{SUFFIX}"))

    def clear(self, but_last: bool = False) -> None:
        """Deletes all, once the stage is over."""
        paths = self.list()
        for path in paths[:-1] if but_last else paths:
            _discard(path)

    def latest(self) -> Path | None:
        return next(reversed(self.list()), None)

    def count_iterations(self) -> int:
        """Counts how many the latest checkpoint has behind it, by its name; 0 where there is none."""
        latest = self.latest()
        number = latest.stem.rpartition("-")[2] if latest else ""
        return int(number) if number.isdecimal() else 0

    def resume(self, load: Load, device: torch.device | str = "cpu") -> dict[str, Any]:
        """Gives `load` the latest checkpoint that is whole, on all ranks; returns its state, {} where there is none.

        A damaged one before which another is kept is put aside under another name; `device` is where ranks compare notes.
        """
        paths = ranks.broadcast_object(self.list()[::-1])
        return self._load_newest(paths, load, lambda failed: bool(ranks.max_over_ranks(int(failed), device)))

    def resume_alone(self, load: Load) -> dict[str, Any]:
        """Does what `resume` does where the other ranks wait (ranks.main_process_first)."""
        return self._load_newest(self.list()[::-1], load, bool)

    def _load_newest(self, paths: Sequence[Path], load: Load, has_any_failed: Callable[[bool], bool]) -> dict[str, Any]:
        for i, path in enumerate(paths):
            state, error = _try_to_load(path, load)
            if not has_any_failed(error is not None):
                return state
            if i == len(paths) - 1:
                raise error or TrainingError(
                    f"{path.name} cannot be read by every process: give all of them one folder."
                )
            message = "%s: it is put aside as %s, training goes on from %s, the one before."
            if ranks.rank() == 0:
                reason = str(error or path.name).removesuffix(REMEDY)
                LOG.warning(message, reason, path.with_suffix(DAMAGED).name, paths[i + 1].name)
                path.replace(path.with_suffix(DAMAGED))
        return {}


def _try_to_load(path: Path, load: Load) -> tuple[dict[str, Any], TrainingError | None]:
    """Gives the state that was loaded, and what was wrong with it."""
    try:
        tensors, state = read_checkpoint(path)
        load(tensors, state)
        return state, None
    except torch.OutOfMemoryError:
        raise
    except TrainingError as error:
        return {}, error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {shorten(error)}"
        return {}, TrainingError(f"{path.name} does not hold what this stage needs ({reason}){REMEDY}")
