"""What became of a set's samples: a broken one is left out, counted and named; too many of them end it."""

from dataclasses import asdict, dataclass, field

from ....prw.files.validate import shorten

MAX_BROKEN_SHARE = 0.01
"""Share of broken samples that is put up with."""
MIN_SEEN = 200
"""Samples that must have been looked at before that is judged."""
TOLERANCE = 3.0
"""Standard deviations by which a sound set may look worse on the way."""
MAX_REASONS = 20


class TooManyBroken(ValueError):
    pass


@dataclass
class SampleCounter:
    name: str
    seen: int = 0
    broken: int = 0
    unfit: int = 0
    """Sound, but with nothing in them of what the task asks for."""
    reasons: dict[str, str] = field(default_factory=dict)
    """The first broken ones: id -> why."""

    def add_broken(self, id: str, why: object) -> None:
        self.broken += 1
        if len(self.reasons) < MAX_REASONS:
            self.reasons[shorten(id)] = shorten(why)
        self.check_share(TOLERANCE * (MAX_BROKEN_SHARE * self.seen) ** 0.5)

    def check_share(self, room: float = 0.0) -> None:
        """At an epoch's end without room for chance, on the way with some."""
        if self.seen >= MIN_SEEN and self.broken > MAX_BROKEN_SHARE * self.seen + room:
            raise TooManyBroken(
                f"{self.name}: {self.summary()}, expected {MAX_BROKEN_SHARE:.0%} at most: mend the files, or download them again."
            )

    def summary(self, most: int = 3) -> str:
        some = "; ".join(f"{id}: {why}" for id, why in list(self.reasons.items())[:most])
        return f"{self.broken} of {self.seen} samples are broken" + (f" ({some})" if some else "")

    def state_dict(self) -> dict:
        return asdict(self)
