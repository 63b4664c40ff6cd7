"""Reads a recipe's text as tables, with changes from the terminal: they are put in before anything is checked, so they are
as strictly typed as the recipe's own lines."""

import sys
from collections.abc import Sequence
from typing import Any

from ...prw.files.validate import check_type, shorten

WORLD_TABLES = ("toy", "world")
"""Of bases that are trained from nothing."""


def read_tables(text: str, changes: Sequence[str] = (), budget: str = "") -> dict[str, Any]:
    """Parses a recipe; `changes` are KEY=VALUE for a setting and STAGE.KEY=VALUE for a line of a table.

    Other tables are toy, world, encoders, subject where the recipe has it, and data.SET. A table budgets.NAME holds such
    changes, too, which come first where `budget` is NAME.
    """
    data = parse_toml(text)
    budgets = check_type("budgets", data.pop("budgets", {}), dict)
    for name, value in check_type(f"budgets.{budget}", budgets.get(budget, {}), dict).items():
        change_setting(data, name, value, name)
    for change in changes:
        name, sign, value = change.partition("=")
        change_setting(data, name if sign else "", parse_value(value), change)
    return data


def list_budgets(text: str) -> list[str]:
    """Lists the budgets that a recipe has of its own."""
    return list(check_type("budgets", parse_toml(text).get("budgets", {}), dict))


def change_setting(data: dict[str, Any], name: str, value: Any, shown: str) -> None:
    """Sets KEY or TABLE.KEY; `shown` is for the sentence, if that cannot be."""
    where, dot, key = name.rpartition(".")
    if not key or bool(dot) != bool(where):
        raise ValueError(f"{shorten(shown)!r} is no change, expected setting=value or stage.field=value")
    (find_table(data, where) if where else data)[key] = value


def find_table(data: dict[str, Any], where: str) -> dict[str, Any]:
    if where in (*WORLD_TABLES, "encoders"):
        return check_type(where, data.setdefault(where, {}), dict)
    if where in data and where == "subject":
        return check_type("subject", data["subject"], dict)
    if where.startswith("data."):
        return check_type(where, check_type("data", data.setdefault("data", {}), dict).setdefault(where[5:], {}), dict)
    stages = [table for table in check_type("stages", data.get("stages", []), list) if isinstance(table, dict)]
    names = [str(table.get("name")) for table in stages]
    if where not in names:
        raise ValueError(
            f"{shorten(where)} is no stage, expected one of {', '.join(names)}, toy, world, encoders or data.SET"
        )
    return stages[names.index(where)]


def parse_value(text: str) -> Any:
    """Parses a value as TOML has it; words need no quotes."""
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
