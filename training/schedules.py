"""Learning rates over a run, as factors of the rate that the recipe names."""

import math


def constant(share: float) -> float:
    return 1.0


def cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


def linear(share: float) -> float:
    return 1.0 - share


SCHEDULES = {"constant": constant, "cosine": cosine, "linear": linear}
FLOOR = 0.02
"""No schedule falls below this, so that the last iterations still do something."""


def compute_rate_factor(name: str, iteration: int, iterations: int, warmup: int) -> float:
    """Computes the factor for an iteration, counted from 0: a straight rise over `warmup` iterations,
    then the schedule."""
    if iteration < warmup:
        return (iteration + 1) / (warmup + 1)
    share = (iteration - warmup) / max(1, iterations - warmup)
    return max(FLOOR, SCHEDULES[name](share))
