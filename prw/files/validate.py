"""Dataclasses from untrusted objects (JSON, TOML), and the checks that they share: each ends in one sentence."""

import unicodedata
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_type_hints

MAX_NUMBER = 1e6
CONTROLS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode's categories of characters that are no marks on paper."""
KIND_NAMES: dict[Any, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    (int, float): "a number",
}


def build(cls: type, data: Any, where: str) -> Any:
    """Makes a dataclass from an object: no unknown key, and each value of its default's type.

    `where` stands in error messages.
    """
    data, hints = check_keys(cls, data, where), get_type_hints(cls)
    for entry in fields(cls):
        if entry.name in data:
            default = entry.default if entry.default_factory is MISSING else entry.default_factory()
            data[entry.name] = _build_value(f"{where}.{entry.name}", data[entry.name], default, hints[entry.name])
    return cls(**data)


def check_keys(cls: type, data: Any, where: str) -> dict[str, Any]:
    """Returns a copy of an object all of whose keys are fields of the dataclass."""
    data = dict(check_type(where, data, dict))
    for key in data.keys() - {entry.name for entry in fields(cls)}:
        raise ValueError(f"{where} has an unknown entry {shorten(key)!r}")
    return data


def _build_value(where: str, value: Any, default: Any, hint: Any) -> Any:
    if is_dataclass(default):
        return build(type(default), value, where)
    if isinstance(default, tuple):
        items = check_type(where, value, list)
        kind = str if get_args(hint)[:1] == (str,) else (int, float)
        return tuple(check_type(where, item, kind) for item in items)
    if isinstance(default, dict):
        kind = (int, float) if get_args(hint)[1:] == (float,) else str
        items = check_type(where, value, dict).items()
        return {key: check_type(f"{where}.{shorten(key)}", item, kind) for key, item in items}
    if isinstance(default, bool) or not isinstance(default, (int, float)):
        return check_type(where, value, type(default))
    if isinstance(value, bool):
        raise ValueError(f"{where} is {value!r}, expected a number")
    return check_type(where, value, (int, float) if isinstance(default, float) else int)


def check_type(where: str, value: Any, kind: type | tuple[type, ...]) -> Any:
    """Returns the value if it is of that type."""
    if not isinstance(value, kind):
        raise ValueError(f"{where} is {shorten(value)!r}, expected {KIND_NAMES.get(kind, 'true or false')}")
    return value


def check_choice(where: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise ValueError(f"{where} is {shorten(value)!r}, expected one of {', '.join(map(repr, options))}")


def check_range(where: str, value: float, low: float = -MAX_NUMBER, high: float = MAX_NUMBER) -> None:
    if not low <= value <= high:  # false for nan, too
        raise ValueError(f"{where} is {shorten(value)}, expected {low:g} to {high:g}: set it within")


def check_multiple(where: str, value: int, of: int) -> None:
    if value % of:
        raise ValueError(f"{where} is {shorten(value)}, expected a multiple of {of}: set it to {value - value % of}")


def shorten(value: Any) -> str:
    """Gives anything from a file or a user as text for a sentence: on one line and not too long."""
    try:
        text = str(value)
    except (ValueError, RecursionError):  # more digits than Python prints, lists in lists in lists
        text = "a huge value"
    text = escape_controls(text)
    return text if len(text) <= 120 else text[:117] + "..."


def shorten_error(error: Exception) -> str:
    """Gives the first line of what a library says, for a sentence."""
    return shorten(str(error).strip().partition("\n")[0])


def escape_controls(text: str, keep: str = "") -> str:
    """Gives text that shows and does nothing: control characters,
    half characters and what turns writing round as escapes."""
    return "".join(
        char if char in keep or unicodedata.category(char) not in CONTROLS else char.encode("unicode_escape").decode()
        for char in text
    )
