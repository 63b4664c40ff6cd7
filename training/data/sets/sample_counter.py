"""Counts what became of a set's samples: a broken one is left out, counted and named; too many of them end the run."""

from dataclasses import asdict, dataclass, field

from ....prw.files.errors import show_as_ours
from ....prw.files.validate import shorten

MAX_BROKEN_SHARE = 0.01
"""Share of samples that may be broken."""
MIN_SEEN = 200
"""Samples that must have been read before that is checked."""
TOLERANCE = 3.0
"""Standard deviations by which the share may be larger before the epoch's end."""
MAX_REASONS = 20


@show_as_ours
class TooManyBroken(ValueError):
    pass


@dataclass
class SampleCounter:
    """Counts a data set's samples. Its fields are keys of files that hold a stream's position."""

    name: str
    seen: int = 0
    broken: int = 0
    unfit: int = 0
    """Not broken, but with nothing in them of what the task asks for."""
    reasons: dict[str, str] = field(default_factory=dict)
    """The first broken ones: id -> why."""

    def add_broken(self, id: str, why: object) -> None:
        self.broken += 1
        if len(self.reasons) < MAX_REASONS:
            self.reasons[shorten(id)] = shorten(why)
        self.check_share(TOLERANCE * (MAX_BROKEN_SHARE * self.seen) ** 0.5)

    def check_share(self, tolerance: float = 0.0) -> None:
        """Raises if too many are broken; `tolerance` is how many more may be."""
        if self.seen >= MIN_SEEN and self.broken > MAX_BROKEN_SHARE * self.seen + tolerance:
            raise TooManyBroken(
                f"{self.name}: {self.summary()}, expected {MAX_BROKEN_SHARE:.0%} at most: mend the files, or download them again."
            )

    def summary(self, max_reasons: int = 3) -> str:
        some = "; ".join(f"{id}: {why}" for id, why in list(self.reasons.items())[:max_reasons])
        return f"{self.broken} of {self.seen} samples are broken" + (f" ({some})" if some else "")

    def state_dict(self) -> dict:
        return asdict(self)
