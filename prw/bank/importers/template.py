"""DiffSynth's Diffusion Templates that are whole models: a second FLUX.2, as an expert that reads a source and a prompt.

Only the file of weights is read, never the Python file beside it. Templates of other kinds: unsupported_files.py.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import replace

from ...base_model import Base
from ...config import BankInfo, ModelInfo
from ...files.lazy_tensors import Renamed
from ...files.safe_file import SafeFile, header_matches
from ...files.validate import check_choice
from ...flux.checkpoint import build_flux
from ...flux.template_names import is_template, rename_template
from ..bank import Bank
from .find_base import PUBLIC
from .names import make_expert_name

PUBLISHED_NAME = "model"
"""Of every template's file: its folder says which it is."""
MARKER = re.compile(rb'"transformer_blocks\.0\.img_to_qkv\.weight"')
"""No other layout has this name; a whole file is known by `recognize`."""
HEADER_BYTES = 1 << 18


def recognize(names: Iterable[str]) -> bool:
    return is_template(names)


def looks_like_template(path: str | os.PathLike) -> bool:
    """Says whether a file's header names the tensors of a template that is a whole model."""
    return header_matches(path, MARKER, HEADER_BYTES)


def read(file: SafeFile, name: str = "", kind: str = "auto", family: str = "auto") -> Bank:
    """Reads one expert that is a whole model; it is named after its folder,
    where its file is called as all of them are."""
    check_choice("kind", kind, ("auto",))
    check_choice("family", family, ("auto",))
    renamed = rename_template(file)
    path = file.path.absolute()
    name = make_expert_name(name or (path.parent.name if path.stem == PUBLISHED_NAME else path.stem))
    shown = f"{path.parent.name}/{path.name}" if path.stem == PUBLISHED_NAME else path.name
    base = Base.of(build_flux(renamed, shown))  # which checks every tensor's shape and type
    base = replace(base, name=next((known.name for known in PUBLIC if replace(known, name="") == base), ""))
    info = BankInfo(base, models={name: ModelInfo(data=shown)})
    return Bank(info, Renamed(renamed, {f"models.{name}.{key}": key for key in renamed}))
