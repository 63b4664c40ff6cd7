"""Checks that this ComfyUI and its model have the hooks that the method needs."""

import inspect

import comfy.ldm.flux.layers
import comfy.ldm.flux.model
import comfyui_version
from torch import nn

from ..flux.families import find_model_family


def check_host() -> None:
    """Looks for the feature, not the version: the hook is there if the block's code mentions it."""
    forward = inspect.unwrap(comfy.ldm.flux.layers.DoubleStreamBlock.forward)
    if forward.__module__ != comfy.ldm.flux.layers.__name__:
        raise RuntimeError(
            f"FLUX's blocks have been replaced by {forward.__module__}, expected ComfyUI's own: disable that pack."
        )
    if "attn1_patch" not in forward.__code__.co_consts:
        raise RuntimeError(
            f"This is ComfyUI {comfyui_version.__version__}, whose FLUX has no hook for CoLoGen, "
            f"expected 0.17.0 or newer: update ComfyUI."
        )


def check_flux(model: nn.Module) -> None:
    """Refuses models that would ignore our hooks without a word."""
    flux = getattr(model, "_orig_mod", model)
    host_flux = comfy.ldm.flux.model.Flux
    if not isinstance(flux, host_flux):
        raise ValueError(
            f"The model is a {type(flux).__name__}, expected ComfyUI's own FLUX: load it with Load Diffusion "
            f"Model (Nunchaku and other replacements of FLUX have no hook for CoLoGen)."
        )
    find_model_family(flux)
    forward = getattr(flux.forward_orig, "__func__", flux.forward_orig)
    if getattr(forward, "__module__", None) != host_flux.__module__:
        raise ValueError(
            f"FLUX's forward has been replaced by {getattr(forward, '__module__', 'another pack')}, expected "
            f"ComfyUI's own: bypass that node (TeaCache, WaveSpeed, PuLID ...); EasyCache works with CoLoGen."
        )
