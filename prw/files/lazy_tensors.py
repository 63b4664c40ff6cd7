"""Mappings of tensors that are read, or made, only when they are asked for."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from .tensor_versions import IdentityKey, read_versions


class LazyTensors(Mapping[str, Tensor]):
    """Tensors by name; a subclass says what is behind a name (`__getitem__`)."""

    def __init__(self, names: Mapping[str, Any]):
        self.names = names
        """The names, in the order in which they are cheap to read."""

    def __contains__(self, key: object) -> bool:
        return key in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def state(self) -> Any:
        """Gives something that compares equal as long as the tensors are the same."""
        return IdentityKey(self)

    def itemsize(self, name: str) -> int:
        """Gives bytes of a tensor's numbers, without making it where that can be known."""
        return self[name].dtype.itemsize


class Renamed(LazyTensors):
    """Another mapping's tensors under other names: `names` maps ours to theirs.

    `change(name, tensor)`, if given, is applied to a tensor that is read; it keeps the type.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        names: Mapping[str, str],
        change: Callable[[str, Tensor], Tensor] | None = None,
    ):
        super().__init__(names)
        self._tensors, self._change = tensors, change

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[self.names[name]]
        return tensor if self._change is None else self._change(name, tensor)

    def state(self) -> Any:
        return super().state(), tensor_state(self._tensors)

    def itemsize(self, name: str) -> int:
        return itemsize(self._tensors, self.names[name])


class Merged(LazyTensors):
    """Several mappings as one; of equal names the first counts."""

    def __init__(self, *parts: Mapping[str, Tensor]):
        super().__init__(dict.fromkeys(sorted({name for part in parts for name in part})))
        self.parts = parts

    def __getitem__(self, name: str) -> Tensor:
        return self._part(name)[name]

    def state(self) -> Any:
        return tuple(map(tensor_state, self.parts))

    def itemsize(self, name: str) -> int:
        return itemsize(self._part(name), name)

    def _part(self, name: str) -> Mapping[str, Tensor]:
        part = next((part for part in self.parts if name in part), None)
        if part is None:
            raise KeyError(name)
        return part


def tensor_state(tensors: Mapping[str, Tensor]) -> Any:
    """Gives what a cache compares: lazy tensors know their state, others are compared one by one."""
    return tensors.state() if isinstance(tensors, LazyTensors) else read_versions(tensors.values())


def itemsize(tensors: Mapping[str, Tensor], name: str) -> int:
    """Gives bytes of a tensor's numbers."""
    return tensors.itemsize(name) if isinstance(tensors, LazyTensors) else tensors[name].dtype.itemsize
