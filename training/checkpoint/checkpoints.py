"""What a stopped stage needs to go on, in one safetensors file: written whole or not at all, the last few kept.

There is no random state in it: what iteration k draws follows from the seed and k (data/batch_sampler.py).
"""

import errno
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...prw.files.atomic_write import PART, atomic_write
from ...prw.files.validate import shorten

SUFFIX = ".safetensors"
KEY = "cologen_training"
VERSION = 1


class TrainingError(RuntimeError):
    """Something a person can act on: one sentence."""


def write_checkpoint(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    try:
        with atomic_write(path) as partial:
            contents = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(contents, partial, {KEY: json.dumps({"version": VERSION, **state})})
    except (OSError, SafetensorError) as error:
        raise TrainingError(_describe_failure(path, error)) from None


def _describe_failure(path: Path, error: Exception) -> str:
    full = getattr(error, "errno", None) == errno.ENOSPC or "no space" in str(error).lower()
    reason = "the disk is full" if full else shorten(error)
    return (
        f"The checkpoint could not be written to {path.parent}: {reason}; the last good one is intact: make room there, "
        f"then resume."
    )


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # a read-only folder: the write said so already


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise TrainingError(f"{path.name} is no checkpoint that can be read ({shorten(error)}): delete it.") from None
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise TrainingError(f"{path.name} is no checkpoint of this version: delete it, or use the pack that made it.")
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
        """The files, oldest first; what a crash left half written has another name and is cleared away."""
        for stray in self.path.glob(f".{self.name}-*{PART}"):
            _discard(stray)
        return sorted(self.path.glob(f"{self.name}-*{SUFFIX}"))

    def clear(self) -> None:
        """Delete all, once the stage is over."""
        for path in self.list():
            _discard(path)

    def latest(self) -> Path | None:
        return next(reversed(self.list()), None)
