"""Errors of files that cannot be used, each in one sentence: what it holds, what was expected, what to do."""


class FileError(ValueError):
    """A file that cannot be used."""


class BankError(FileError):
    """A bank that cannot be used."""
