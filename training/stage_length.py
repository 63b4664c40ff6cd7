"""How long a stage is: as many iterations as its recipe says or, with `iterations = "auto"`, until it stands still.

An open stage is checked every `check_every` iterations on samples that it never trained on. It is over when its loss at
fixed timesteps has found no new low in `standstill` checks and the newest expert's usage is within `usage_band` of rho,
at the latest at its ceiling. Our choices, for the paper's lengths are fixed:

- a new low is one lower by the share `tolerance`; usage is that of inference, and waited for only where a veteran loss
  moves it and there is an older expert to take from;
- the rate stays up until the end is decided and then falls, as `schedule` says, over a tail of a quarter of the
  iterations so far, in which the router's noise fades if `noise_end` lets it; without either there is no tail. A stage
  that never stands still has its tail before its ceiling;
- `ahead`: what stages that stood still have left of their ceilings, later ones may use beyond their own for as long as
  they gain. So the iterations go to the task that gains most: those that left some gained less than `tolerance` a check.
  Gains count by iterations, not by minutes, so that a run that goes on decides as one that was never stopped.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..prw.files.validate import check_range
from .recipes.curriculum import Settings, Stage
from .schedules import compute_rate_factor

TAIL = 0.25
"""Length of the tail, as a share of the iterations before it."""
GOES_ON, WAITS, STILL, LIMIT = "goes on", "waits for usage", "stood still", "reached its limit"


@dataclass(frozen=True)
class LengthCheck:
    """What was found when a stage asked whether it is over."""

    verdict: str
    """One of GOES_ON, WAITS, STILL, LIMIT; with the last two the stage's end is decided."""
    end: int
    """The last iteration, as far as is known by now."""
    loss: float | None = None
    usage: float | None = None
    """Of the newest expert, as at inference."""
    waited: int = 0
    """Checks in a row without a new low."""


class StageLength:
    """Says when a stage is over, and how far its rate has fallen by then."""

    def __init__(self, stage: Stage, settings: Settings, spare: int = 0):
        """`spare` are iterations that earlier stages have left."""
        self.stage, self.settings, self.is_auto = stage, settings, bool(stage.ceiling)
        self.limit = stage.iterations + (spare if settings.ahead and self.is_auto else 0)
        self.best, self.waited, self.checked = math.inf, 0, 0
        self.tail_start, self.end = self._place_tail(self.limit), self.limit
        self.is_decided = not self.is_auto

    def _place_tail(self, length: int) -> int:
        """Finds where the tail of a stage of this length begins."""
        return math.floor(length / (1 + TAIL)) if self._has_tail else length

    @property
    def _has_tail(self) -> bool:
        return self.settings.schedule != "constant" or self.settings.noise_end < 1

    def needs_check(self, iteration: int) -> bool:
        """Says whether a check is due after so many iterations: once each, after the warm-up."""
        every, due = self.settings.check_every, iteration > max(self.checked, self.settings.warmup)
        return not self.is_decided and due and iteration < self.tail_start and iteration % every == 0

    def check(self, iteration: int, loss: float, usage: float, experts: int) -> LengthCheck:
        """Takes in what was found on held-out samples; `usage` is the newest of so many experts'."""
        self.checked = iteration
        is_low = math.isinf(self.best) or loss < self.best * (1 - self.settings.tolerance)
        self.best, self.waited = (loss, 0) if is_low else (self.best, self.waited + 1)
        verdict = GOES_ON
        if self.waited >= self.settings.standstill:
            in_band = abs(usage - self.stage.rho) <= self.settings.usage_band
            is_moved = experts > 1 and self.stage.veteran > 0
            is_beyond = iteration >= self._place_tail(self.stage.iterations)  # iterations of others are for gains alone
            verdict = STILL if in_band or not is_moved or is_beyond else WAITS
        if verdict == STILL:
            tail = round(TAIL * iteration) if self._has_tail else 0
            self.is_decided, self.tail_start, self.end = True, iteration, min(self.limit, iteration + tail)
        return LengthCheck(verdict, self.end, loss, usage, self.waited)

    def close(self, iteration: int) -> LengthCheck | None:
        """Decides the end of a stage that has come as near to its limit as its tail is long; None if it has not."""
        if self.is_decided or iteration < self.tail_start:
            return None
        self.is_decided = True
        return LengthCheck(LIMIT, self.end, waited=self.waited)

    def compute_rate_factor(self, iteration: int) -> float:
        settings = self.settings
        if not self.is_auto:
            return compute_rate_factor(settings.schedule, iteration, self.end, settings.warmup)
        if iteration < self.tail_start:
            return compute_rate_factor("constant", iteration, self.end, settings.warmup)
        return compute_rate_factor(settings.schedule, iteration - self.tail_start, self.end - self.tail_start, 0)

    def compute_noise_scale(self, iteration: int) -> float:
        """Computes how much of the router's noise is left."""
        noise_end = self.settings.noise_end
        if self.is_auto:
            past = max(0, iteration - self.tail_start) / max(1, self.end - self.tail_start)
            return 1.0 if noise_end >= 1 else 1 - past
        share = iteration / self.end
        return 1.0 if share <= noise_end else (1 - share) / (1 - noise_end)

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in STATE}

    def load(self, state: dict[str, Any]) -> None:
        check_range("length.end", state["end"], 1, self.limit)
        for name, kind in STATE.items():
            setattr(self, name, kind(state[name]))


STATE: dict[str, type] = {
    "best": float,
    "waited": int,
    "checked": int,
    "tail_start": int,
    "end": int,
    "is_decided": bool,
}


def describe_check(check: LengthCheck) -> dict[str, Any]:
    """Describes a check as the log has it."""
    return {name: value for name, value in asdict(check).items() if value is not None}
