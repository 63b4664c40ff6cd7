"""What a cache may compare: objects by identity, tensors by identity and by how often they were written to."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor


class IdentityKey:
    """Equal only if it holds the very same objects; holding them keeps their ids from being used again."""

    def __init__(self, *objects: Any):
        self.objects = objects

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, IdentityKey)
            and len(self.objects) == len(other.objects)
            and all(a is b for a, b in zip(self.objects, other.objects, strict=True))
        )

    __hash__ = None  # pyrefly: ignore[bad-override]


def read_versions(tensors: Iterable[Tensor]) -> tuple[IdentityKey, tuple[int, ...]]:
    """Reads a value that changes when a tensor is replaced or written to. Inference tensors keep no count:
    do not write to them."""
    tensors = tuple(tensors)
    return IdentityKey(*tensors), tuple(0 if t.is_inference() else t._version for t in tensors)
