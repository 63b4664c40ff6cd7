"""Timesteps from easy to hard: a stage begins near pure noise and goes on towards the picture whenever it stands still.

The denoising-task-difficulty curriculum. Our choices: phases of equal shares of what training draws, not of time; one is
over when the smoothed loss has found no new low for `patience` iterations, and all are open by half the stage.
"""

import math

SMOOTHING = 0.95
"""Share of the running loss that stays from one iteration to the next."""
OPEN_BY = 0.5
"""Part of a stage: the rest sees every timestep, or one that never stands still would not learn to finish a picture."""


class TimestepSchedule:
    """Opens timesteps phase by phase, noisiest first, as the loss stands still."""

    def __init__(self, phases: int, patience: int):
        self.phases, self.patience = phases, patience
        self.phase = 1
        self._begin_phase()

    def _begin_phase(self) -> None:
        self.smoothed, self.best, self.waited = math.nan, math.inf, 0

    def compute_open_share(self, done: float) -> float:
        """Computes the share of the timesteps, noisiest first, to train when this part of the stage is `done`."""
        due = 1 + int(min(1.0, done / OPEN_BY) * (self.phases - 1))
        if due > self.phase:
            self.phase = due
            self._begin_phase()
        return self.phase / self.phases

    def update(self, loss: float) -> None:
        """Takes in an iteration's loss, the same on every rank."""
        self.smoothed = loss if math.isnan(self.smoothed) else SMOOTHING * self.smoothed + (1 - SMOOTHING) * loss
        better = self.smoothed < self.best
        self.best, self.waited = min(self.best, self.smoothed), 0 if better else self.waited + 1
        if self.waited >= self.patience and self.phase < self.phases:
            self.phase += 1
            self._begin_phase()

    def state(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in STATE}

    def load(self, state: dict[str, float]) -> None:
        for name in STATE:
            setattr(self, name, state[name])


STATE = ("phase", "smoothed", "best", "waited")
