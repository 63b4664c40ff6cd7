"""A stage of the curriculum as data. One stage trains one expert and its router; older experts are frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...prw.config import FINAL, NAME
from ...prw.files.validate import build, check_choice, check_range, check_type, shorten
from ...prw.router import ROUTE_PER

AUTO = "auto"
"""Instead of a number of iterations: the stage ends by itself."""
COLUMNS = ("all", "newest")
FEATURES = ("off", "auxiliary", "self", "coredi")


@dataclass(frozen=True)
class Stage:
    """A step of the curriculum, which trains one expert: a table of a recipe."""

    name: str = ""
    """Of the expert, its router and, unless `task` says otherwise, its task."""
    task: str = ""
    """A row of TASKS, or a name that the data has; empty: the stage's name."""
    data: tuple[str, ...] = ()
    """Names of the sets that it trains on, of the recipe's [data]."""
    iterations: int = 1
    ceiling: int = 0
    """Above 0: the stage may end before its `iterations`, which are as many (stage_length.py).
    A recipe says `iterations = "auto"` and the ceiling."""
    batch: int = 1
    """Samples an optimizer update sees, over all ranks and accumulation."""
    rho: float = 0.8
    """The newest expert's share of the blocks that the veteran loss aims at (eq. 9)."""
    veteran: float = 0.5
    """The veteran loss's weight, the paper's alpha."""
    replay: float = 0.0
    """Share of samples from earlier tasks. Our choice: the stage's own router and expert learn them, too,
    and the veteran loss leaves them out."""
    replay_from: Mapping[str, float] = field(default_factory=dict)
    """Earlier tasks that `replay` takes from, and their weights; empty: all, each as often."""
    start: str = ""
    """An older expert that the new one begins as a copy of; empty: it begins as nothing, adding 0 (our choice:
    the paper does not say)."""
    shared: str = ""
    """A group of experts that have one down matrix and each its own up: its first trains it, the others find it frozen.
    Empty: an expert of its own, as the paper's."""
    parent: str = ""
    """An older expert that the new one adds to (our choice): it learns a difference, and takes its parent's place among what
    routers choose. Empty: none, as the paper's."""
    rank: int = 0
    """Of its expert, alpha in proportion; 0: the recipe's."""
    features: str = "off"
    """How it learns an encoder's features of the target as well (training/coredi)."""
    along: tuple[str, ...] = ()
    """Older experts that are trained as well: co-training, what the paper compares its curriculum with."""
    route: str = ""
    """What the router chooses an expert for: "sample", a whole source, or "token", each of its tokens. Empty: as the last
    stage's router, the first: "sample"."""

    columns: str = "all"
    """What a stage trains of its router, which begins as the last stage's: "all" columns, or the "newest" expert's alone (our
    choice), so that older ones choose what they did."""

    def __post_init__(self):
        if not self.name:
            raise ValueError("a stage has no name")
        if not NAME.fullmatch(self.name) or self.name == FINAL:
            raise ValueError(
                f"a stage is named {shorten(self.name)!r}, expected 1 to 64 letters, digits, _ and -, and not {FINAL}"
            )
        for key in ("shared", "parent"):
            if (value := getattr(self, key)) and not NAME.fullmatch(value):
                raise ValueError(f"{self.name}.{key} is {shorten(value)!r}, expected 1 to 64 letters, digits, _ and -")
        check_range(f"{self.name}.rank", self.rank, 0, 16384)
        check_range(f"{self.name}.iterations", self.iterations, 1, 10**9)
        check_range(f"{self.name}.ceiling", self.ceiling, 0, 10**9)
        if self.ceiling not in (0, self.iterations):
            raise ValueError(
                f"{self.name}.ceiling is {self.ceiling} and iterations {self.iterations}, expected the same: give one"
            )
        check_range(f"{self.name}.batch", self.batch, 1, 10**6)
        check_range(f"{self.name}.rho", self.rho, 0, 1)
        check_range(f"{self.name}.veteran", self.veteran, 0, 1000)
        check_range(f"{self.name}.replay", self.replay, 0, 1)
        for task, weight in self.replay_from.items():
            check_range(f"{self.name}.replay_from.{shorten(task)}", weight, 1e-6, 10**6)
        if self.replay_from and not self.replay:
            raise ValueError(f"{self.name}.replay_from names tasks, but replay is 0: set the share that is theirs")
        check_choice(f"{self.name}.features", self.features, FEATURES)
        check_choice(f"{self.name}.route", self.route, ("", *ROUTE_PER))
        check_choice(f"{self.name}.columns", self.columns, COLUMNS)
        object.__setattr__(self, "task", self.task or self.name)


def build_stage(table: Any, where: str) -> Stage:
    """Builds one from a recipe's table; `where` is for the sentence, if it cannot be used."""
    if not isinstance(table, dict) or "ceiling" not in table and table.get("iterations") != AUTO:
        return build(Stage, table, where)
    if "ceiling" not in table:
        raise ValueError(
            f'{where}.iterations is "auto" without an end, expected ceiling, the most there may be: add it'
        )
    if "iterations" not in table:
        raise ValueError(f'{where} has a ceiling, but no iterations: add iterations = "auto"')
    rest = {key: value for key, value in table.items() if key != "ceiling"}
    if table["iterations"] != AUTO:  # a number, from the terminal perhaps, has the last word
        return build(Stage, rest, where)
    check_range(f"{where}.ceiling", check_type(f"{where}.ceiling", table["ceiling"], int), 1, 10**9)
    return build(Stage, {**table, "iterations": table["ceiling"]}, where)
