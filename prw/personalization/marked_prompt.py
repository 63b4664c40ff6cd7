"""Marked prompts: which text tokens name the thing that a method looks for in attention.

Words are marked in the prompt, "a [dog] on the beach"; their tokens' rows travel in CONDITIONING beside the text.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import count, takewhile
from typing import Any, NamedTuple

import torch

MARKED_TOKENS = "cologen_words"
"""The option of a conditioning entry that holds its MarkedTokens."""
MARK = re.compile(r"\[([^\[\]]+)\]")
STAND_INS = ("thing", "circle")
"""Two words that have no token in common."""
TOKEN_ROWS: dict[str, Callable[[int, int], int]] = {
    "t5xxl": lambda place, word: place,
    "qwen3_4b": lambda place, word: place,
    "qwen3_8b": lambda place, word: place,
    "toy": lambda place, word: word - 1,
}
"""For each tokenizer that FLUX's text tokens come from: a token's place and word id (from 1) -> its row among them."""


class MarkedTokens(NamedTuple):
    """The rows of a prompt's marked words among its text tokens."""

    noun: tuple[int, ...]
    """Rows of the marked words."""
    prompt_length: int
    """Rows of the whole prompt; padding follows."""


def remove_marks(text: str) -> str:
    """Returns the prompt without the brackets, as FLUX reads it."""
    return MARK.sub(r"\1", text)


def find_marked_tokens(text: str, tokenize: Callable[[str], dict[str, list]]) -> MarkedTokens:
    """Finds the marked words' tokens: those that change when other words stand in for them."""
    tokens = list_word_tokens(tokenize(remove_marks(text)))
    noun: set[int] = set()
    for number in range(len(MARK.findall(text))):
        others = [list_word_tokens(tokenize(_replace_mark(text, number, word))) for word in STAND_INS]
        start = min(_count_shared(tokens, other) for other in others)
        end = len(tokens) - min(_count_shared(tokens[start:][::-1], other[::-1]) for other in others)
        noun |= {row for _, row in tokens[start:end]}
    if not noun:
        raise ValueError(f"The prompt {text[:60]!r} marks no word, expected one in brackets: a [dog] on the beach.")
    return MarkedTokens(tuple(sorted(noun)), 1 + max(row for _, row in tokens))


def list_word_tokens(tokens: dict[str, list]) -> list[tuple[Any, int]]:
    """Lists tokens with their rows, from a tokenizer's answer with word ids; word id 0 is padding and the like."""
    for name, row in TOKEN_ROWS.items():
        if name in tokens:
            return [(entry[0], row(place, entry[2])) for place, entry in enumerate(tokens[name][0]) if entry[2]]
    raise ValueError(
        f"The text encoder is of {', '.join(tokens)}, expected FLUX.1's or FLUX.2 klein's: load it with type flux or flux2."
    )


def list_marked_tokens(conditioning: list) -> list[MarkedTokens]:
    """Lists the marked tokens of a conditioning's entries that have any."""
    return [options[MARKED_TOKENS] for _, options in conditioning if MARKED_TOKENS in options]


def _replace_mark(text: str, number: int, word: str) -> str:
    """Gives the prompt with a word in place of the mark of that number; other marks keep their words."""
    numbers = count()
    return MARK.sub(lambda mark: word if next(numbers) == number else mark[1], text)


def _count_shared(one: Sequence, other: Iterable) -> int:
    """Counts how many tokens two prompts begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: _is_same_token(pair[0][0], pair[1][0]), zip(one, other)))


def _is_same_token(one: Any, other: Any) -> bool:
    """Says whether two tokens are the same; textual inversions are tensors among the token numbers."""
    if torch.is_tensor(one) or torch.is_tensor(other):
        return torch.is_tensor(one) and torch.is_tensor(other) and torch.equal(one, other)
    return one == other
