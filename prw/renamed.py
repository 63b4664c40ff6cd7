"""Tensors of another mapping under other names, read when they are asked for."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .identity import Same, state_of


class Renamed(Mapping):
    """`names` maps ours to theirs; `change(name, tensor)`, if given, is what becomes of a tensor on its way."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        names: Mapping[str, str],
        change: Callable[[str, Tensor], Tensor] | None = None,
    ):
        self._tensors, self._names, self._change = tensors, names, change
        self._self = Same(self)

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[self._names[name]]
        return tensor if self._change is None else self._change(name, tensor)

    def __iter__(self):
        return iter(self._names)

    def __len__(self):
        return len(self._names)

    def state(self) -> Any:
        return (self._self, state_of(self._tensors))

    def check_unchanged(self) -> None:
        check_unchanged(self._tensors)


def check_unchanged(tensors: Mapping[str, Tensor]) -> None:
    """Refuses files that were written over since they were opened (safe_file.py)."""
    for part in getattr(tensors, "maps", [tensors]):
        if hasattr(part, "check_unchanged"):
            part.check_unchanged()
