"""Names of imported experts."""

import re

from ...config import NAME
from ...files.errors import BankError
from ...files.validate import check_choice, shorten
from ..bank import Bank
from ..edit import rename


def make_expert_name(name: str) -> str:
    """Makes an expert's name of a file's, or of what a user typed."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60].strip("_")
    return plain if NAME.fullmatch(plain) else "imported"


def apply_name(bank: Bank, name: str, kind: str, family: str) -> Bank:
    """Renames the expert of a bank that says itself what it is for; several experts keep their names."""
    check_choice("kind", kind, ("auto",))
    check_choice("family", family, ("auto",))
    if not name:
        return bank
    if len(bank.info.experts) != 1:
        raise BankError(
            f"The name is {shorten(name)} for {len(bank.info.experts)} experts, expected one: leave the name "
            f"empty, and they keep theirs."
        )
    return rename(bank, dict.fromkeys(bank.info.experts, make_expert_name(name)))
