"""Experts that others trained, read as banks. A row of IMPORTERS is a format that is one file; PEFT adapters are folders."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from ...files.errors import FileError
from ...files.safe_file import SafeFile
from ..bank import METADATA_KEY, Bank
from . import difference, easycontrol, find_base, lora, peft, template
from .find_base import AUTO
from .names import apply_name
from .unsupported_files import check_supported


class Importer(NamedTuple):
    """How a format is recognized and read."""

    label: str
    recognize: Callable[[Iterable[str]], bool]
    """Whether a file with these tensor names is of the format."""
    read: Callable[[SafeFile, str, str, str], Bank]
    """File, name of the expert, kind ("auto": by the file's name), family ("auto": by its layers) -> bank."""


IMPORTERS = {
    "template": Importer("a Diffusion Template that is a whole model", template.recognize, template.read),
    "difference": Importer("a template that was extracted", difference.recognize, difference.read),
    "easycontrol": Importer("EasyControl or OmniConsistency", easycontrol.recognize, easycontrol.read),
    "lora": Importer("a LoRA", lora.recognize, lora.read),
}

CHOICES = ("auto", *easycontrol.KINDS, lora.PARTIAL)
"""Kinds that a user can choose for an importer."""
FAMILY_CHOICES = find_base.CHOICES


def open_experts(path: str | os.PathLike, name: str = "", kind: str = "auto", family: str = AUTO) -> Bank:
    """Opens a bank file, another pack's file, or a PEFT adapter's folder as a bank; only headers are read.

    What its file leaves open: `kind` says what it is for, `family` for which FLUX.
    """
    try:
        if os.path.isdir(path):
            return peft.read(Path(path), name, kind, family)
        file = SafeFile(path)
        if METADATA_KEY in file.metadata:
            return apply_name(Bank.of(file), name, kind, family)
        return import_file(file, name, kind, family)
    except FileError:
        raise
    except ValueError as error:
        raise FileError(f"{Path(path).absolute().name} cannot be read as experts: {error}.") from None


def import_file(file: SafeFile, name: str = "", kind: str = "auto", family: str = AUTO) -> Bank:
    """Reads another pack's file as a bank."""
    check_supported(file, file.name)
    row = find_format(file)
    if row is None:
        known = ", ".join(importer.label for importer in IMPORTERS.values())
        raise FileError(
            f"{file.name} is neither a CoLoGen bank nor a file that can be imported ({known}): choose another."
        )
    return IMPORTERS[row].read(file, name, kind, family)


def find_format(names: Iterable[str]) -> str | None:
    """Finds the row of IMPORTERS that recognizes these tensor names."""
    return next((key for key, importer in IMPORTERS.items() if importer.recognize(names)), None)
