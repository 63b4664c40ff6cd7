"""What a cache may compare: things by identity, tensors by identity and by how often they were written to."""

from collections import ChainMap
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor


class Same:
    """Equal only if it holds the very same objects; holding them keeps their ids from being used again."""

    def __init__(self, *things: Any):
        self.things = things

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Same)
            and len(self.things) == len(other.things)
            and all(a is b for a, b in zip(self.things, other.things, strict=True))
        )

    __hash__ = None


def versions(tensors: Iterable[Tensor]) -> tuple[Same, tuple[int, ...]]:
    """Changes when a tensor is replaced or written to. Inference tensors keep no count: do not write to them."""
    tensors = tuple(tensors)
    return Same(*tensors), tuple(0 if t.is_inference() else t._version for t in tensors)


def state_of(tensors: Mapping[str, Tensor]) -> Any:
    """Of a bank's tensors: those of a file know it themselves, a merged bank is what its parts are."""
    if hasattr(tensors, "state"):
        return tensors.state()
    if isinstance(tensors, ChainMap):
        return tuple(state_of(part) for part in tensors.maps)
    return versions(tensors.values())
