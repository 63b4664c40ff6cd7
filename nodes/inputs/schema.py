"""Node schemas that load on every ComfyUI with V3 nodes: fields a host does not know are left out."""

import inspect
from dataclasses import fields
from typing import Any

from comfy_api.latest import io

BankType = io.Custom("COLOGEN_BANK")
ConceptType = io.Custom("COLOGEN_CONCEPT")
DataType = io.Custom("COLOGEN_DATA")
FeaturesType = io.Custom("COLOGEN_FEATURES")
OptionsType = io.Custom("COLOGEN_OPTIONS")
BoxType = io.Custom("BOUNDING_BOX")
"""The host's own; named here because older hosts do not."""
LossType = io.Custom("LOSS_MAP")
"""The host's own: its Plot Loss Graph takes it, too."""
CATEGORY = "CoLoGen"
TRAINING = "CoLoGen/training"
SAMPLING = "CoLoGen/sampling"

_known = {field.name for field in fields(io.Schema)}
_advanced = "advanced" in inspect.signature(io.Float.Input.__init__).parameters


def make_schema(**wanted: Any) -> io.Schema:
    return io.Schema(**{key: value for key, value in wanted.items() if key in _known})


def advanced() -> dict[str, bool]:
    """For knobs that few need: folded away where the host can fold."""
    return {"advanced": True} if _advanced else {}


def slider(name: str, default: float, low: float, high: float, tooltip: str, **rest):
    return io.Float.Input(name, default=default, min=low, max=high, step=0.01, tooltip=tooltip, **rest)
