"""Experts that others trained, read as banks. One file a family; a family is a row of IMPORTERS."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from ..bank import METADATA_KEY, Bank
from ..bank_info import BankError
from ..safe_file import SafeFile
from . import easycontrol, lora, peft


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

STRANGERS = {
    ".lora_route.": "ICEdit's mixture of LoRAs, which routes every token of the picture itself in layers that no source "
    "passes; use its normal LoRA with the stock LoRA loader",
    ".norm1.linear.lora_": "an OminiControl file, whose condition reads the noise and so changes at every step; a source "
    "here never does, and the weights would not mean the same",
}
"""Part of a tensor's name -> what such a file is, and why it cannot become an expert."""


def open_experts(path: str | os.PathLike, name: str = "", kind: str = "auto") -> Bank:
    """A bank file, another pack's file, or a PEFT adapter's folder as a bank; only headers are read."""
    if os.path.isdir(path):
        return peft.read(Path(path), name, kind)
    file = SafeFile(path)
    if METADATA_KEY in file.metadata:
        return Bank.open(path)
    return imported(file, name, kind)


def imported(file: SafeFile, name: str = "", kind: str = "auto") -> Bank:
    for part, what in STRANGERS.items():
        if any(part in key for key in file):
            raise BankError(f"{file.path.name} is {what}.")
    family = family_of(file)
    if family is None:
        known = ", ".join(importer.label for importer in IMPORTERS.values())
        raise BankError(
            f"{file.path.name} is neither a CoLoGen bank nor a file that can be imported ({known}): choose another."
        )
    return IMPORTERS[family].read(file, name, kind)


def family_of(names: Iterable[str]) -> str | None:
    return next((family for family, importer in IMPORTERS.items() if importer.claims(names)), None)
