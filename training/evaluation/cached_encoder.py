"""A network that encodes pictures and remembers: sources, references and photographs are compared with many answers."""

import hashlib
from typing import Any

import numpy as np


class CachedEncoder:
    """Encodes each picture once; a subclass says how."""

    def __init__(self):
        self.cache: dict[bytes, Any] = {}
        """Encodings by a hash of the picture's pixels and shape."""

    def embed(self, picture: np.ndarray) -> Any:
        """Returns what `encode` does, from the cache where it can."""
        key = str(picture.shape).encode()
        digest = hashlib.blake2b(np.ascontiguousarray(picture).data, key=key).digest()
        if digest not in self.cache:
            self.cache[digest] = self.encode(picture)
        return self.cache[digest]

    def encode(self, picture: np.ndarray) -> Any:
        raise NotImplementedError
