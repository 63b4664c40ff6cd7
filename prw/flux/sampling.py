"""The flow-matching Euler sampler of FLUX: from noise (t = 1) to a picture (t = 0)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .flux1 import time_shift


def make_timesteps(
    steps: int, tokens: int | None = 4096, time_shift: Callable[[int, int], float] = time_shift
) -> list[float]:
    """Makes timesteps from 1 to 0 in `steps` steps, shifted towards noise by the family's rule, FLUX.1's if not given.

    `tokens` None, for schnell: no shift.
    """
    times = torch.linspace(1, 0, steps + 1).tolist()
    if tokens is None:
        return times
    mu = time_shift(steps, tokens)
    return [0.0 if t == 0 else math.exp(mu) / (math.exp(mu) + (1 / t - 1)) for t in times]


def sample_euler(velocity: Callable[[Tensor, Tensor, float], Tensor], x: Tensor, times: list[float]) -> Tensor:
    """Follows `velocity(x, timestep, progress)`, progress from 0 at the first step towards 1."""
    for i, (t, following) in enumerate(zip(times, times[1:], strict=False)):
        timestep = torch.full((len(x),), t, device=x.device, dtype=torch.float32)
        x = x + (following - t) * velocity(x, timestep, i / (len(times) - 1))
    return x
