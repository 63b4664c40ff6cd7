"""Experts that others trained, read as banks. One file a family; a family is a row of IMPORTERS."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from ...files.errors import FileError
from ...files.safe_file import SafeFile
from ..bank import METADATA_KEY, Bank
from . import easycontrol, lora, peft
from .names import as_asked
from .unsupported_files import refuse_strangers


class Importer(NamedTuple):
    label: str
    claims: Callable[[Iterable[str]], bool]
    """Whether a file with these tensor names is of the family."""
    read: Callable[[SafeFile, str, str], Bank]
    """File, name of the expert, kind ("auto": by the file's name) -> bank."""


IMPORTERS = {
    "easycontrol": Importer("EasyControl or OmniConsistency", easycontrol.claims, easycontrol.read),
    "lora": Importer("a LoRA", lora.claims, lora.read),
}

CHOICES = ("auto", *easycontrol.KINDS, lora.PARTIAL)
"""Kinds that a user can tell an importer."""


def open_experts(path: str | os.PathLike, name: str = "", kind: str = "auto") -> Bank:
    """A bank file, another pack's file, or a PEFT adapter's folder as a bank; only headers are read."""
    try:
        if os.path.isdir(path):
            return peft.read(Path(path), name, kind)
        file = SafeFile(path)
        if METADATA_KEY in file.metadata:
            return as_asked(Bank.open(path), name, kind)
        return imported(file, name, kind)
    except FileError:
        raise
    except ValueError as error:
        raise FileError(f"{Path(path).absolute().name} cannot be read as experts: {error}.") from None


def imported(file: SafeFile, name: str = "", kind: str = "auto") -> Bank:
    refuse_strangers(file, file.name)
    family = family_of(file)
    if family is None:
        known = ", ".join(importer.label for importer in IMPORTERS.values())
        raise FileError(
            f"{file.name} is neither a CoLoGen bank nor a file that can be imported ({known}): choose another."
        )
    return IMPORTERS[family].read(file, name, kind)


def family_of(names: Iterable[str]) -> str | None:
    return next((family for family, importer in IMPORTERS.items() if importer.claims(names)), None)
