"""A file's name as an expert's."""

import re

from ..bank_info import NAME


def expert_name(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60].strip("_")
    return plain if NAME.fullmatch(plain) else "imported"
