"""Subject and edit: data sets that bring both pictures, so that little is left to do."""

from collections.abc import Sequence

import numpy as np

from ..sample import Example, Pair, Triple


def make_subject_example(rng: np.random.Generator, pair: Pair, kinds: Sequence[str] = ()) -> Example:
    """The subject of one picture, in the scene that the other one's caption tells of; either may be the one to draw."""
    pictures, captions = (pair.first, pair.second), (pair.first_caption, pair.second_caption)
    drawn = int(rng.integers(2))
    return Example(pair.id, "subject", captions[drawn], pictures[1 - drawn], pictures[drawn])


def make_edit_example(rng: np.random.Generator, triple: Triple, kinds: Sequence[str] = ()) -> Example:
    """Nothing to draw by lot; `rng` is here because every recipe takes one."""
    return Example(triple.id, "edit", triple.instruction, triple.before, triple.after)
