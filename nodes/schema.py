"""Node schemas that load on every ComfyUI with V3 nodes: fields a host does not know are left out."""

import inspect
from dataclasses import fields
from typing import Any

from comfy_api.latest import io

BankType = io.Custom("COLOGEN_BANK")
DataType = io.Custom("COLOGEN_DATA")
LossType = io.Custom("LOSS_MAP")
"""The host's own: its Plot Loss Graph takes it, too."""
CATEGORY = "CoLoGen"
TRAINING = "CoLoGen/training"

_known = {field.name for field in fields(io.Schema)}
_advanced = "advanced" in inspect.signature(io.Float.Input.__init__).parameters


def schema(**wanted: Any) -> io.Schema:
    return io.Schema(**{key: value for key, value in wanted.items() if key in _known})


def advanced() -> dict[str, bool]:
    """For knobs that few need: folded away where the host can fold."""
    return {"advanced": True} if _advanced else {}
