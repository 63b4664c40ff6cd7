"""How benches measure: steps in turn, so that a slow minute hits them alike, and medians."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from .shapes import Shapes

Steps = Mapping[str, Callable[[], object]]
"""What is compared, by name."""


def time_in_turn(steps: Steps, repeats: int, device: str) -> dict[str, float]:
    """Median seconds of each step over `repeats` rounds, after one that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            _synchronize(device)
            start = time.perf_counter()
            step()
            _synchronize(device)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure_peaks(steps: Steps, device: str) -> dict[str, float]:
    """Peak memory of each step in MiB, beyond what was allocated before it; on CUDA only."""
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
    """What figures were measured on."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"cpu, {torch.get_num_threads()} threads"
    return {
        "device": name,
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "shapes": vars(shapes),
    }


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
