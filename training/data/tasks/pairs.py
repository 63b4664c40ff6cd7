"""Subject and edit (paper, section 2.3): data sets bring both pictures, so that little is left to do."""

from collections.abc import Sequence

import numpy as np

from ..sample import Example, Pair, Triple


def make_subject_example(rng: np.random.Generator, pair: Pair, kinds: Sequence[str] = ()) -> Example:
    """Asks for the subject of one picture in the scene of the other one's caption; either may be the
    target (our choice)."""
    pictures, captions = (pair.first, pair.second), (pair.first_caption, pair.second_caption)
    target = int(rng.integers(2))
    return Example(pair.id, "subject", captions[target], pictures[1 - target], pictures[target])


def make_edit_example(rng: np.random.Generator, triple: Triple, kinds: Sequence[str] = ()) -> Example:
    """Takes the triple as it is; `rng` is here because every maker takes one."""
    return Example(triple.id, "edit", triple.instruction, triple.before, triple.after)
