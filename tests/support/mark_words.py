"""The words of a mark, taken apart."""

from typing import NamedTuple


class MarkWords(NamedTuple):
    is_box: bool
    reference: str
    """What is marked."""
    colour: str


def read_mark_words(words: str) -> MarkWords:
    """Reads "a blue box around the left fox" and "the left fox in blue"."""
    if " box around " in words:
        colour, reference = words.removeprefix("a ").split(" box around ")
        return MarkWords(True, reference, colour)
    return MarkWords(False, *words.split(" in "))
