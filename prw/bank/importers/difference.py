"""Templates that `cologen bank extract` made small: whole models that run on the layers of the base."""

from collections.abc import Iterable

from ...config import BankInfo, ModelInfo
from ...files.lazy_tensors import Renamed
from ...files.safe_file import SafeFile
from ...files.validate import check_choice
from ..bank import Bank
from ..difference import TemplateDifference
from .names import make_expert_name

MARK = "single_stream_modulation.lin.down"
"""A layer that is always among them."""


def recognize(names: Iterable[str]) -> bool:
    return MARK in set(names)


def read(file: SafeFile, name: str = "", kind: str = "auto", family: str = "auto") -> Bank:
    """Reads one expert, named after its template."""
    check_choice("kind", kind, ("auto",))
    check_choice("family", family, ("auto",))
    found = TemplateDifference.of(file).info
    name = make_expert_name(name or found.template or file.path.stem)
    info = BankInfo(found.base, licence=found.licence, models={name: ModelInfo(file.name, on_base=True)})
    return Bank(info, Renamed(file, {f"models.{name}.{key}": key for key in file}))
