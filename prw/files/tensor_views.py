"""Tensors of another mapping under other names, read when they are asked for."""

from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .tensor_versions import Same, state_of


class Renamed(Mapping):
    """`names` maps ours to theirs; `change(name, tensor)`, if given, is what becomes of a tensor on its way; it
    keeps the type."""

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

    def __contains__(self, name):
        return name in self._names

    def __iter__(self):
        return iter(self._names)

    def __len__(self):
        return len(self._names)

    def state(self) -> Any:
        return (self._self, state_of(self._tensors))

    def width(self, name: str) -> int:
        return width_of(self._tensors, self._names[name])


def width_of(tensors: Mapping[str, Tensor], name: str) -> int:
    """Bytes that a number of a tensor takes, without computing it."""
    if isinstance(tensors, ChainMap):
        return width_of(next(part for part in tensors.maps if name in part), name)
    return tensors.width(name) if hasattr(tensors, "width") else tensors[name].dtype.itemsize
