"""What a bank says of itself: its experts, its routers, and how its sources were modulated in training.

Every class checks its values: they may come from any file. `bank/info.py` writes and reads them as JSON.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .base_model import Base
from .experts import TARGETS
from .files.plain_data import OMIT_DEFAULT
from .files.validate import check_choice, check_range, shorten
from .positions import POSITION
from .router import ROUTE_PER
from .source_format import SourceFormat

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What an expert or a router may be called."""
SOURCE_TIMES = ("zero", "shared")
MAX_DEPTH = 8
"""Experts that one may stand below, in a tree."""
FINAL = "final"
"""Stands for the last router: the paper's single model."""


@dataclass(frozen=True)
class ExpertInfo:
    rank: int = 128
    alpha: float = 256.0
    """The paper's scale: alpha / rank = 2."""
    targets: Mapping[str, str] = field(default_factory=lambda: {"k": "all", "v": "all"})
    """Changed projection -> the blocks in which: "all", "double" or "single". Our choice: keys and values have each a pair
    of matrices, in all blocks, though "MMDiT blocks" may be read as the double ones alone."""
    task: str = ""
    role: str = ""
    """"concept", "localisation" or "": what a routing lean does to it."""
    stage: int = 0
    iterations: int = 0
    data: str = ""
    licence: str = ""
    triggers: tuple[str, ...] = ()
    """Words that a prompt should hold."""
    habits: SourceFormat = field(default_factory=SourceFormat)
    """The bank file's key of `source_format`: how its source was given in training."""
    scaled: bool = False
    """Each pair of matrices has a scale of its own beside it: fp8 keeps its digits that way."""
    shared: str = ""
    """Its down matrices are those of this group, which other experts use as well."""
    parent: str = field(default="", metadata=OMIT_DEFAULT)
    """The expert that it adds to (our choice): its own matrices are the difference, its parent's are read where its own are."""

    def __post_init__(self):
        if not 1 <= self.rank <= 16384:
            raise ValueError(f"rank is {self.rank}, expected 1 to 16384")
        check_range("alpha", self.alpha)
        _check_names(name for name in (self.shared, self.parent) if name)
        check_choice("role", self.role, ("concept", "localisation", ""))
        if not self.targets:
            raise ValueError(f"an expert has no targets, expected one or more of {', '.join(TARGETS)}")
        for target, where in self.targets.items():
            check_choice("target", target, TARGETS)
            check_choice("blocks", where, ("all", "double", "single"))
            if target == "proj" and where != "double":
                raise ValueError(
                    f"proj changes {where} blocks, expected double: only they have a projection of their own"
                )

    @property
    def source_format(self) -> SourceFormat:
        return self.habits

    def targets_in(self, block: str) -> list[str]:
        """Says which projections of a block it changes."""
        return [target for target, where in self.targets.items() if where == "all" or block.startswith(where)]


@dataclass(frozen=True)
class ModelInfo:
    """An expert that is a whole model: a second FLUX, which reads the source and a prompt of its own (model_pass.py)."""

    data: str = ""
    """The file that it is read from: a bank's own file holds none."""
    on_base: bool = False
    """Whether it runs on the layers of the base, and is only what differs from them (bank/difference.py)."""


@dataclass(frozen=True)
class RouterInfo:
    """Our choice: each stage leaves a router of its own, so that a later stage changes no earlier task."""

    experts: tuple[str, ...] = ()
    """Expert names in column order; the stage's own comes last."""
    task: str = ""
    per: str = "sample"
    usage: tuple[float, ...] = ()
    """Each expert's share of the blocks, without noise, when the stage was over; empty: not known."""

    def __post_init__(self):
        check_choice("per", self.per, ROUTE_PER)
        for share in self.usage:
            check_range("usage", share, 0, 1)
        if len(self.usage) not in (0, len(self.experts)):
            raise ValueError(
                f"usage has {len(self.usage)} numbers, expected one for each of {len(self.experts)} experts"
            )
        _check_names(self.experts)
        if not self.experts or len(set(self.experts)) != len(self.experts):
            raise ValueError(f"a router chooses among {shorten(self.experts)}, expected one expert or more, each once")


@dataclass(frozen=True)
class SourceInfo:
    """How the source stream was modulated in training."""

    time: str = "zero"
    """"zero": as a clean picture, once for all sampler steps (our choice); "shared": with the noise's timestep, as the
    supplement's "time-step dependent" routing may be read."""
    guidance: float = 1.0
    """Of the source, for a distilled base (our choice)."""
    position: str = field(default="", metadata=OMIT_DEFAULT)
    """Where sources lay (positions.py); empty: as their task or the model's family says."""

    def __post_init__(self):
        check_choice("position", self.position, ("", *POSITION))
        check_choice("time", self.time, SOURCE_TIMES)
        check_range("guidance", self.guidance)

    @property
    def follows_time(self) -> bool:
        """Whether keys, values and routes are other ones at every timestep, so that none can be kept."""
        return self.time == "shared"


@dataclass(frozen=True)
class BankInfo:
    base: Base
    experts: Mapping[str, ExpertInfo] = field(default_factory=dict)
    routers: Mapping[str, RouterInfo] = field(default_factory=dict)
    source: SourceInfo = field(default_factory=SourceInfo)
    licence: str = ""
    models: Mapping[str, ModelInfo] = field(default_factory=dict, metadata=OMIT_DEFAULT)
    """Experts that are whole models."""

    @property
    def last_router(self) -> str | None:
        """The stage whose router knows most experts; None where there is no router."""
        return max(self.routers, key=lambda stage: len(self.list_known(stage)), default=None)

    def list_known(self, stage: str) -> list[str]:
        """Lists the experts that a stage's router chooses among, each behind those that it adds to."""
        columns = self.routers[stage].experts
        known = (name for column in columns for name in reversed(self.list_family(column)))
        return list(dict.fromkeys(known))

    def list_family(self, name: str) -> list[str]:
        """Lists an expert and those that it adds to: its parent, that one's parent and so on.
        The last may be in another file."""
        family = [name]
        while (expert := self.experts.get(family[-1])) and expert.parent and len(family) <= MAX_DEPTH:
            family.append(expert.parent)
        return family

    def __post_init__(self):
        _check_names((*self.experts, *self.routers, *self.models))
        if both := self.experts.keys() & self.models.keys():
            raise ValueError(f"two experts are named {both.pop()}: rename one of them")
        if FINAL in self.routers:
            raise ValueError(f"a router is named {FINAL}, which stands for the last one: rename it")
        ranks: dict[str, int] = {}
        for name, expert in self.experts.items():
            if not any(map(self.base.count, expert.targets.values())):
                raise ValueError(f"expert {name} changes {dict(expert.targets)}, but the base has no such block")
            if expert.shared and ranks.setdefault(expert.shared, expert.rank) != expert.rank:
                raise ValueError(
                    f"expert {name} has rank {expert.rank}, expected {ranks[expert.shared]} as all that share down "
                    f"matrices in {expert.shared}"
                )
            self._check_parent(name, expert)

    def _check_parent(self, name: str, expert: ExpertInfo) -> None:
        """Refuses what is no tree; a parent that is in another file is missed where the expert is used."""
        last = self.experts.get(self.list_family(name)[-1])
        if last is not None and last.parent:
            raise ValueError(
                f"expert {name} adds to {expert.parent} and so on, expected a tree: no circle, at most {MAX_DEPTH} experts above one"
            )
        parent = self.experts.get(expert.parent)
        if parent is not None and dict(parent.targets) != dict(expert.targets):
            raise ValueError(
                f"expert {name} changes {dict(expert.targets)}, expected {dict(parent.targets)} as {expert.parent}, which "
                f"it adds to"
            )


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(f"the name {shorten(name)!r} is not made of 1 to 64 letters, digits, _ and -")
