"""Which encoders a FLUX family has: one row a family."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from ...prw.files.errors import FileError
from ...prw.files.validate import build, shorten
from ...prw.flux.families import FLUX1, FLUX2
from .flux1 import Flux1Files, FluxEncoders
from .flux2 import Flux2Encoders, Flux2Files
from .from_files import EncoderFiles, FileEncoders


class EncoderKind(NamedTuple):
    """A family's table [encoders], and what opens it."""

    files: type[EncoderFiles]
    encoders: type[FileEncoders]

    def count_known(self, table: Mapping[str, Any]) -> int:
        """Counts the table's keys that this family's has."""
        return len(table.keys() & {field.name for field in fields(self.files)})


ENCODERS = {FLUX1.name: EncoderKind(Flux1Files, FluxEncoders), FLUX2.name: EncoderKind(Flux2Files, Flux2Encoders)}


def open_encoders(table: Mapping[str, Any], device: str) -> FileEncoders:
    """Opens what a recipe's table [encoders] names; what is missing is said at once, not when it is first needed.

    Its keys say for which family it is.
    """
    kind = max(ENCODERS.values(), key=lambda kind: kind.count_known(table))
    files, label = build(kind.files, dict(table), "encoders"), kind.encoders.family.label
    for name in kind.encoders.needed:
        path = getattr(files, name)
        if not Path(path).is_file():
            found = f"there is no file {shorten(path)}" if path else f"the recipe's table [encoders] says no {name}"
            raise FileError(f"{label}'s encoders are needed, but {found}: set encoders.{name} to its place.")
    return kind.encoders(files, device)
