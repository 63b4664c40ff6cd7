"""Finds things that a caption names: by spaCy's noun chunks where it and its English model are installed, else (our choice)
as runs of words between those that never belong to a thing. The second is simple and takes some verbs along; labels say which it was."""

import re
from collections.abc import Callable
from functools import lru_cache

MAX_PHRASES = 12
"""Most phrases of a caption."""
MAX_WORDS = 4
"""Most words of a phrase; of longer ones the last are taken."""
MODEL = "en_core_web_sm"
STOP_WORDS = frozenset(
    """a an the this that these those some any each every no another its his her their our your my it he she they we you i
    him them us me and or but nor so yet with without in into on onto at by for from of off to toward towards over under
    above below behind beside between among through across along around near inside outside against during after before
    while as like than then is are was were be been being am has have had having do does did can could will would shall
    should may might must not very quite also just there here where when who whom which what whose how why all both either
    neither one two three four five six seven eight nine ten several many few more most other such own same up down out
    sitting standing walking holding wearing looking lying riding playing eating showing shown depicting depicted features
    featuring image picture photo photograph painting illustration scene view background foreground style""".split()
)
FindPhrases = Callable[[str], list[str]]


def choose_finder() -> tuple[str, FindPhrases]:
    """Returns the name of the way in which phrases are found here, and the function that does it."""
    find_chunks = load_spacy()
    return ("spacy", find_chunks) if find_chunks else ("stop words", find_word_runs)


@lru_cache(maxsize=1)
def load_spacy() -> FindPhrases | None:
    """Loads spaCy's English model; None, if it is not installed."""
    try:
        import spacy

        language = spacy.load(MODEL)
    except (ImportError, OSError):
        return None

    def find_chunks(caption: str) -> list[str]:
        chunks = language(caption).noun_chunks
        return tidy([[token.text for token in chunk if not (token.is_stop or token.is_punct)] for chunk in chunks])

    return find_chunks


def find_word_runs(caption: str) -> list[str]:
    runs: list[list[str]] = [[]]
    for word in re.findall(r"[^\W_]+(?:['-][^\W_]+)*|[^\w\s]", caption):
        if word.lower() in STOP_WORDS or not word[0].isalpha():
            runs.append([])
        else:
            runs[-1].append(word)
    return tidy(runs)


def tidy(runs: list[list[str]]) -> list[str]:
    """Joins runs of words to different phrases in lower case."""
    phrases = (" ".join(run[-MAX_WORDS:]).lower() for run in runs if run)
    return list(dict.fromkeys(phrases))[:MAX_PHRASES]
