"""What a bank says of itself: dataclasses, and their strict JSON form in the file's metadata."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..config import Base
from ..experts import TARGETS
from ..files.validate import between, build, known_only, one_of, short, typed
from ..router import ROUTE_PER
from ..source_format import Habits

FORMAT = "cologen-bank"
VERSION = 2
"""2: habits, the target proj, scales, shared down matrices, usage."""
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
SIZE_LIMIT = 1 << 20
FINAL = "final"


class BankError(ValueError):
    """A bank that cannot be used, in one sentence."""


@dataclass(frozen=True)
class ExpertInfo:
    rank: int = 128
    alpha: float = 256.0
    """The paper's scale: alpha / rank = 2."""
    targets: Mapping[str, str] = field(default_factory=lambda: {"k": "all", "v": "all"})
    """Bent projection -> the blocks in which: "all", "double" or "single"."""
    task: str = ""
    role: str = ""
    """"concept", "localisation" or "": what a routing lean does to it."""
    stage: int = 0
    iterations: int = 0
    data: str = ""
    licence: str = ""
    triggers: tuple[str, ...] = ()
    """Words that a prompt should hold."""
    habits: Habits = field(default_factory=Habits)
    scaled: bool = False
    """Each pair of matrices has a scale of its own beside it: fp8 keeps its digits that way."""
    shared: str = ""
    """Its down matrices are those of this group, which other experts use as well."""

    def __post_init__(self):
        if not 1 <= self.rank <= 16384:
            raise ValueError(f"rank is {self.rank}, expected 1 to 16384")
        between("alpha", self.alpha)
        _check_names((self.shared,) if self.shared else ())
        one_of("role", self.role, ("concept", "localisation", ""))
        if not self.targets:
            raise ValueError(f"an expert has no targets, expected one or more of {', '.join(TARGETS)}")
        for target, where in self.targets.items():
            one_of("target", target, TARGETS)
            one_of("blocks", where, ("all", "double", "single"))
            if target == "proj" and where != "double":
                raise ValueError(
                    f"proj bends {where} blocks, expected double: only they have a projection of their own"
                )

    def targets_in(self, block: str) -> list[str]:
        """What it bends of a block."""
        return [target for target, where in self.targets.items() if where == "all" or block.startswith(where)]


@dataclass(frozen=True)
class RouterInfo:
    experts: tuple[str, ...] = ()
    """Expert names in column order; the stage's own comes last."""
    task: str = ""
    per: str = "sample"
    usage: tuple[float, ...] = ()
    """Each expert's share of the blocks, without noise, when the stage was over; empty: not known."""

    def __post_init__(self):
        one_of("per", self.per, ROUTE_PER)
        for share in self.usage:
            between("usage", share, 0, 1)
        if len(self.usage) not in (0, len(self.experts)):
            raise ValueError(
                f"usage has {len(self.usage)} numbers, expected one for each of {len(self.experts)} experts"
            )
        _check_names(self.experts)
        if not self.experts or len(set(self.experts)) != len(self.experts):
            raise ValueError(f"a router chooses among {short(self.experts)}, expected one expert or more, each once")


@dataclass(frozen=True)
class SourceInfo:
    """How the source stream was modulated in training."""

    time: str = "zero"
    """"zero": as a clean picture, once for all sampler steps; "shared": with the noise's timestep."""
    guidance: float = 1.0

    def __post_init__(self):
        one_of("time", self.time, ("zero", "shared"))
        between("guidance", self.guidance)


@dataclass(frozen=True)
class BankInfo:
    base: Base
    experts: Mapping[str, ExpertInfo] = field(default_factory=dict)
    routers: Mapping[str, RouterInfo] = field(default_factory=dict)
    source: SourceInfo = field(default_factory=SourceInfo)
    licence: str = ""

    def __post_init__(self):
        _check_names((*self.experts, *self.routers))
        if FINAL in self.routers:
            raise ValueError(f"a router is named {FINAL}, which stands for the last one: rename it")
        ranks: dict[str, int] = {}
        for name, expert in self.experts.items():
            if not any(map(self.base.count, expert.targets.values())):
                raise ValueError(f"expert {name} bends {dict(expert.targets)}, but the base has no such block")
            if expert.shared and ranks.setdefault(expert.shared, expert.rank) != expert.rank:
                raise ValueError(
                    f"expert {name} has rank {expert.rank}, expected {ranks[expert.shared]} as all that share down "
                    f"matrices in {expert.shared}"
                )


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(f"the name {short(name)!r} is not made of 1 to 64 letters, digits, _ and -")


def encode(info: BankInfo) -> str:
    text = json.dumps({"format": FORMAT, "version": VERSION, **asdict(info)})
    if len(text) > SIZE_LIMIT:
        raise BankError(
            f"The bank's metadata is {len(text)} characters long, expected at most {SIZE_LIMIT}: split the bank."
        )
    return text


def decode(text: str | None, name: str) -> BankInfo:
    """The info in a file's metadata, or a BankError that names the file."""
    if text is None:
        raise BankError(f"{name} is a safetensors file but no CoLoGen bank: it has no CoLoGen metadata.")
    try:
        if len(text) > SIZE_LIMIT:
            raise ValueError(f"it is {len(text)} characters long, expected at most {SIZE_LIMIT}")
        data = json.loads(text)
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise ValueError(f'it does not say "format": "{FORMAT}"')
        version = data.pop("version", None)
        if not isinstance(version, int) or version < 1:
            raise ValueError(f"its version is {short(version)}, expected a number")
        if version > VERSION:
            raise BankError(
                f"{name} is a bank of version {short(version)}, this pack reads up to {VERSION}: update the pack."
            )
        return _bank_info(data)
    except BankError:
        raise
    except (ValueError, OverflowError, RecursionError) as error:
        raise BankError(f"{name} has metadata that cannot be used ({short(error)}): it is no valid bank.") from None


def _bank_info(data: dict[str, Any]) -> BankInfo:
    named = {"experts": ExpertInfo, "routers": RouterInfo}
    whole = {"base": Base, "source": SourceInfo}
    for key, cls in named.items():
        entries = typed(key, data.get(key, {}), dict)
        data[key] = {name: build(cls, entry, f"{key}.{short(name)}") for name, entry in entries.items()}
    for key, cls in whole.items():
        data[key] = build(cls, data.get(key, {}), key)
    typed("licence", data.get("licence", ""), str)
    return BankInfo(**known_only(BankInfo, data, "metadata"))
