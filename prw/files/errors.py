"""Errors of files that cannot be used, each in one sentence: what it holds, what was expected, what to do."""

from typing import TypeVar

from .validate import escape_controls

Kind = TypeVar("Kind", bound=type)


def show_as_ours(kind: Kind) -> Kind:
    """Names an error's class as a person is to read it, CoLoGen.BankError: hosts print the module before it."""
    kind.__module__ = "CoLoGen"
    return kind


@show_as_ours
class FileError(ValueError):
    """A file that cannot be used; one line, whatever names strangers give."""

    def __init__(self, sentence: str):
        super().__init__(escape_controls(sentence))


@show_as_ours
class BankError(FileError):
    """A bank that cannot be used."""
