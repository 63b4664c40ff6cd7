"""Subject and edit: data sets that bring both pictures, so that little is left to do."""

import numpy as np

from ..sample import Example, Pair, Triple


def subject(rng: np.random.Generator, pair: Pair) -> Example:
    """The subject of one picture, in the scene that the other one's caption tells of; either may be the one to draw."""
    pictures, captions = (pair.first, pair.second), (pair.first_caption, pair.second_caption)
    drawn = int(rng.integers(2))
    return Example(pair.id, "subject", captions[drawn], pictures[1 - drawn], pictures[drawn])


def edit(rng: np.random.Generator, triple: Triple) -> Example:
    """Nothing to draw by lot; `rng` is here because every recipe takes one."""
    return Example(triple.id, "edit", triple.instruction, triple.before, triple.after)
