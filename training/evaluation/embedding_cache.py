"""A network that looks at pictures, and remembers: sources, references and photographs meet many answers."""

import hashlib

import numpy as np


class Looker:
    def __init__(self):
        self.seen = {}

    def see(self, picture: np.ndarray):
        digest = hashlib.blake2b(np.ascontiguousarray(picture), key=str(picture.shape).encode()).digest()
        if digest not in self.seen:
            self.seen[digest] = self.look(picture)
        return self.seen[digest]

    def look(self, picture: np.ndarray):
        raise NotImplementedError
