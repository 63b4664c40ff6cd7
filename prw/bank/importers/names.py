"""What an imported expert is called."""

import re

from ...config import NAME
from ...files.errors import BankError
from ...files.validate import check_choice, shorten
from ..bank import Bank
from ..edit import rename


def expert_name(name: str) -> str:
    """A file's name, or what a user typed, as an expert's."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60].strip("_")
    return plain if NAME.fullmatch(plain) else "imported"


def as_asked(bank: Bank, name: str, kind: str) -> Bank:
    """A bank that says itself what its experts are for; a single one can be given another name."""
    check_choice("kind", kind, ("auto",))
    if not name:
        return bank
    if len(bank.info.experts) != 1:
        raise BankError(
            f"The name is {shorten(name)} for {len(bank.info.experts)} experts, expected one: give them names with "
            f"cologen bank rename."
        )
    return rename(bank, dict.fromkeys(bank.info.experts, expert_name(name)))
