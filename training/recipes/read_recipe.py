"""Reads a recipe's text as tables, with changes from the terminal: they are put in before anything is checked, so they are
as strictly typed as the recipe's own lines."""

import sys
from collections.abc import Sequence
from typing import Any

from ...prw.files.validate import check_type, shorten


def read_tables(text: str, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Parse a recipe; `changes` are KEY=VALUE for a setting and STAGE.KEY=VALUE for a line of a table.

    Other tables are toy, encoders, subject where the recipe has it, and data.SET.
    """
    data = parse_toml(text)
    for change in changes:
        name, sign, value = change.partition("=")
        where, dot, key = name.rpartition(".")
        if not (sign and key) or bool(dot) != bool(where):
            raise ValueError(f"{shorten(change)!r} is no change, expected setting=value or stage.field=value")
        (find_table(data, where) if where else data)[key] = parse_value(value)
    return data


def find_table(data: dict[str, Any], where: str) -> dict[str, Any]:
    if where in ("toy", "encoders"):
        return check_type(where, data.setdefault(where, {}), dict)
    if where in data and where == "subject":
        return check_type("subject", data["subject"], dict)
    if where.startswith("data."):
        return check_type(where, check_type("data", data.setdefault("data", {}), dict).setdefault(where[5:], {}), dict)
    stages = [table for table in check_type("stages", data.get("stages", []), list) if isinstance(table, dict)]
    names = [str(table.get("name")) for table in stages]
    if where not in names:
        raise ValueError(f"{shorten(where)} is no stage, expected one of {', '.join(names)}, toy, encoders or data.SET")
    return stages[names.index(where)]


def parse_value(text: str) -> Any:
    """Parse a value as TOML has it; words need no quotes."""
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text


def parse_toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):  # here, for the pack must load where tomli is missing
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it has lists within lists without end, expected TOML") from None
