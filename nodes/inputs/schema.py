"""Node schemas that load on every ComfyUI with V3 nodes: fields a host does not know are left out.

A node's `execute` takes its inputs by their names in the schema, so that it alone may have more than seven parameters.
"""

import dataclasses
import inspect
from typing import Any

from comfy_api.latest import io

BankType = io.Custom("COLOGEN_BANK")
ConceptType = io.Custom("COLOGEN_CONCEPT")
DataType = io.Custom("COLOGEN_DATA")
FeaturesType = io.Custom("COLOGEN_FEATURES")
OptionsType = io.Custom("COLOGEN_OPTIONS")
StitchType = io.Custom("COLOGEN_STITCH")
BoxType = io.Custom("BOUNDING_BOX")
"""The host's own; named here because older hosts do not."""
LossType = io.Custom("LOSS_MAP")
"""The host's own: its Plot Loss Graph takes it, too."""
CATEGORY = "CoLoGen"
TRAINING = "CoLoGen/training"
SAMPLING = "CoLoGen/sampling"

KNOWN_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}
CAN_FOLD = "advanced" in inspect.signature(io.Float.Input.__init__).parameters


def make_schema(**fields: Any) -> io.Schema:
    """Makes a node's schema of the fields that this host knows."""
    return io.Schema(**{name: value for name, value in fields.items() if name in KNOWN_FIELDS})


def advanced() -> dict[str, bool]:
    """Gives what folds a knob away that few need, where the host can fold."""
    return {"advanced": True} if CAN_FOLD else {}


def box_input(name: str, tooltip: str) -> BoxType.Input:
    """Makes a socket for boxes of the host; without forceInput its frontend would draw four numbers instead."""
    return BoxType.Input(name, optional=True, tooltip=tooltip, extra_dict={"forceInput": True})


def slider(name: str, default: float, low: float, high: float, tooltip: str, **rest: Any) -> io.Float.Input:
    """Makes a number in steps of 0.01."""
    return io.Float.Input(name, default=default, min=low, max=high, step=0.01, tooltip=tooltip, **rest)


def int_knob(name: str, default: int, low: int, high: int, tooltip: str, **rest: Any) -> io.Int.Input:
    return io.Int.Input(name, default=default, min=low, max=high, tooltip=tooltip, **rest)


def float_knob(
    name: str, default: float, low: float, high: float, step: float, tooltip: str, **rest: Any
) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=low, max=high, step=step, round=False, tooltip=tooltip, **rest)
