"""Dataclasses as plain data for a file's metadata: the way back from `validate.build`."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

OMIT_DEFAULT = {"omit_default": True}
"""Metadata of a field that came later: files that do not need it are written as before, so that earlier packs read them."""


def to_plain(value: Any) -> Any:
    """Turns a dataclass, and those within it, into dicts and lists."""
    if is_dataclass(value):
        items = ((field, getattr(value, field.name)) for field in fields(value))
        kept = [(field, item) for field, item in items if not (field.metadata and item == _make_default(field))]
        return {field.name: to_plain(item) for field, item in kept}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _make_default(field: Field) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
