"""A second FLUX on the layers of the first: what differs is added to their outputs, and nothing of the first is touched.

The layers are called, never their weights read, so LoRA, fp8 and offloading of the first keep working.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields

import torch
from torch import Tensor, nn

from .blocks import FluxModel
from .families import Flux, find_model_family

Residual = Callable[[Tensor], Tensor]
"""A layer's input -> what is added to its output."""


class ChangedLayer(nn.Module):
    """Another model's layer and a residual. The layer stays the other's: moving this one leaves it where it is."""

    def __init__(self, layer: nn.Module, residual: Residual | None):
        super().__init__()
        self._layer = (layer,)  # in a tuple no module of ours
        self._residual = residual

    def forward(self, x: Tensor) -> Tensor:
        (layer,) = self._layer
        if self._residual is None:
            return layer(x)
        residual = self._residual(x)  # first: fp8 layers may clamp their input
        out = layer(x)
        return out + residual.to(out)


def change_model(base: FluxModel, residuals: Mapping[str, Residual]) -> Flux:
    """Makes a model of our own on the layers of a base, ours or ComfyUI's; `residuals` go by the layers' names."""
    family = find_model_family(base)
    if family.embedded is None:
        raise ValueError(f"The model is a {family.label}, which has no model of our own: load another base.")
    shape = {field.name: getattr(base.params, field.name) for field in fields(family.embedded.params)}
    with torch.device("meta"):
        model = family.embedded.model(family.embedded.params(**shape | {"axes_dim": tuple(shape["axes_dim"])}))
    for name, layer in list(model.named_modules()):
        if any(True for _ in layer.parameters(recurse=False)):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, ChangedLayer(base.get_submodule(name), residuals.get(name)))
    return model.eval()
