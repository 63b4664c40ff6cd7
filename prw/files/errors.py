"""Errors of files that cannot be used, each in one sentence: what it holds, what was expected, what to do."""

from .validate import escape_controls


class FileError(ValueError):
    """A file that cannot be used; one line, whatever names strangers give."""

    def __init__(self, sentence: str):
        super().__init__(escape_controls(sentence))


class BankError(FileError):
    """A bank that cannot be used."""
