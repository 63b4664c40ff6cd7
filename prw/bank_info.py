"""What a bank says of itself: dataclasses, and their strict JSON form in the file's metadata."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from .config import Base
from .experts import TARGETS
from .router import ROUTE_PER

FORMAT = "cologen-bank"
VERSION = 1
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
SIZE_LIMIT = 1 << 20
LARGEST = 1e6
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

    def __post_init__(self):
        if not 1 <= self.rank <= 16384:
            raise ValueError(f"rank is {self.rank}, expected 1 to 16384")
        _bounded("alpha", self.alpha)
        _one_of("role", self.role, ("concept", "localisation", ""))
        for target, where in self.targets.items():
            _one_of("target", target, TARGETS)
            _one_of("blocks", where, ("all", "double", "single"))


@dataclass(frozen=True)
class RouterInfo:
    experts: tuple[str, ...] = ()
    """Expert names in column order; the stage's own comes last."""
    task: str = ""
    per: str = "sample"

    def __post_init__(self):
        _one_of("per", self.per, ROUTE_PER)
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
        _one_of("time", self.time, ("zero", "shared"))
        _bounded("guidance", self.guidance)


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


def short(value: Any) -> str:
    """Anything from a file or a user, fit for a sentence: on one line and not too long."""
    try:
        text = str(value)
    except ValueError:  # an integer of more digits than Python prints
        text = "a huge number"
    text = text.encode("unicode_escape", "replace").decode()
    return text if len(text) <= 120 else text[:117] + "..."


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(f"the name {short(name)!r} is not made of 1 to 64 letters, digits, _ and -")


def _bounded(where: str, value: float) -> None:
    if not -LARGEST <= value <= LARGEST:  # false for nan, too
        raise ValueError(f"{where} is {short(value)}, expected a number within {LARGEST:g}")


def encode(info: BankInfo) -> str:
    return json.dumps({"format": FORMAT, "version": VERSION, **asdict(info)})


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
        entries = _typed(key, data.get(key, {}), dict)
        data[key] = {name: _build(cls, entry, f"{key}.{short(name)}") for name, entry in entries.items()}
    for key, cls in whole.items():
        data[key] = _build(cls, data.get(key, {}), key)
    return _build(BankInfo, data, "metadata", nested=True)


def _build(cls: type, data: Any, where: str, nested: bool = False):
    """A dataclass from a JSON object: no unknown key, none missing, each value of its default's type."""
    data = dict(_typed(where, data, dict))
    known = {f.name: f for f in fields(cls)}
    for key in data.keys() - known.keys():
        raise ValueError(f"{where} has an unknown entry {short(key)!r}")
    if nested:
        _typed("licence", data.get("licence", ""), str)
        return cls(**data)
    for key, value in data.items():
        default = known[key].default
        default = known[key].default_factory() if default is MISSING else default
        data[key] = _value(f"{where}.{key}", value, default)
    return cls(**data)


def _value(where: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        items = _typed(where, value, list)
        kind = (int, float) if where.endswith(".probe") else str
        return tuple(_typed(where, item, kind) for item in items)
    if isinstance(default, dict):
        return {key: _typed(where, item, str) for key, item in _typed(where, value, dict).items()}
    if isinstance(default, bool) or not isinstance(default, (int, float)):
        return _typed(where, value, type(default))
    if isinstance(value, bool):
        raise ValueError(f"{where} is {value!r}, expected a number")
    return _typed(where, value, (int, float) if isinstance(default, float) else int)


KINDS = {dict: "an object", list: "a list", str: "a text", int: "a whole number", (int, float): "a number"}


def _typed(where: str, value: Any, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{where} is {short(value)!r}, expected {KINDS.get(kind, 'true or false')}")
    return value


def _one_of(where: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise ValueError(f"{where} is {short(value)!r}, expected one of {', '.join(map(repr, options))}")
