"""How benches measure: steps in turn, so that a slow minute hits them alike, and medians."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from .shapes import Shapes

Steps = Mapping[str, Callable[[], object]]
"""What is compared, by name."""
Rounds = Mapping[str, Sequence[float]]
"""Seconds of each step, round by round."""


def time_in_turn(steps: Steps, repeats: int, device: str) -> dict[str, float]:
    """Measures median seconds of each step over `repeats` rounds, after one that warms up."""
    return take_medians(time_rounds(steps, repeats, device))


def time_rounds(steps: Steps, repeats: int, device: str) -> Rounds:
    """Measures seconds of each step in every of `repeats` rounds, after one that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            _synchronize(device)
            start = read_clock(device)
            step()
            _synchronize(device)
            if turn:
                seconds[name].append(read_clock(device) - start)
    return seconds


def take_medians(rounds: Rounds) -> dict[str, float]:
    """Gives the median of each step."""
    return {name: statistics.median(values) for name, values in rounds.items()}


def compare_rounds(rounds: Rounds, step: str, other: str) -> list[float]:
    """Compares a step over another, round by round: two that ran side by side had the same machine."""
    return [mine / theirs for mine, theirs in zip(rounds[step], rounds[other], strict=True)]


def is_alone(device: str) -> bool:
    """Says whether one thread computes all: its processor time is what it costs, whatever else runs on the machine."""
    return device == "cpu" and torch.get_num_threads() == 1


def read_clock(device: str) -> float:
    """Reads seconds of the process where one thread computes, else of the wall."""
    return time.process_time() if is_alone(device) else time.perf_counter()


def measure_peaks(steps: Steps, device: str) -> dict[str, float]:
    """Measures peak memory of each step in MiB, beyond what was allocated before it; on CUDA only."""
    if not device.startswith("cuda"):
        return {}
    peaks = {}
    for name, step in steps.items():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        peaks[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return peaks


def describe_run(shapes: Shapes, device: str, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Describes what figures were measured on."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"cpu, {torch.get_num_threads()} threads"
    return {
        "device": name,
        "clock": "processor" if is_alone(device) else "wall",
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "shapes": vars(shapes),
    }


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
