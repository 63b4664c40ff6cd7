"""Checks that this ComfyUI and its model have the hooks that the method needs."""

import inspect
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import comfy.ldm.chroma.model
import comfy.ldm.chroma_radiance.model
import comfy.ldm.flux.layers
import comfy.ldm.flux.model
import comfyui_version
from torch import Tensor, nn

from ..flux.families import describe_text_width, find_model_family

HOST_CLASSES = (comfy.ldm.flux.model.Flux, comfy.ldm.chroma.model.Chroma)
"""ComfyUI's models whose blocks have the hook."""
UNKNOWN_ARGUMENT = re.compile(
    r"([\w.]+)\(\) got an unexpected keyword argument '(input_act|act_weight|act_eps|residual|residual_scale)'"
)
"""What Python says of a layer without the arguments that hosts from 0.39 on pass."""


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
    flux: Any = getattr(model, "_orig_mod", model)
    host_class = next((known for known in HOST_CLASSES if isinstance(flux, known)), None)
    if host_class is None or isinstance(flux, comfy.ldm.chroma_radiance.model.ChromaRadiance):
        raise ValueError(
            f"The model is a {type(flux).__name__}, expected ComfyUI's own FLUX or Chroma: load it with Load Diffusion "
            f"Model (Nunchaku and other replacements of FLUX have no hook for CoLoGen, Chroma Radiance has no latents)."
        )
    find_model_family(flux)
    forward = getattr(flux.forward_orig, "__func__", flux.forward_orig)
    if getattr(forward, "__module__", None) != host_class.__module__:
        raise ValueError(
            f"FLUX's forward has been replaced by {getattr(forward, '__module__', 'another pack')}, expected "
            f"ComfyUI's own: bypass that node (TeaCache, WaveSpeed, PuLID ...); EasyCache works with CoLoGen."
        )


def describe_foreign_positions(model: nn.Module) -> str:
    """Says that another pack has put its own in the place of FLUX's positions; "" if none has."""
    embedder = getattr(getattr(model, "_orig_mod", model), "pe_embedder", None)
    if embedder is None or isinstance(embedder, comfy.ldm.flux.layers.EmbedND):
        return ""
    return (
        f"FLUX's positions come from {type(embedder).__module__} (as a DyPE node does it): sources keep FLUX's own, and may not "
        f"lie where the picture does."
    )


@contextmanager
def name_outdated_layers() -> Generator[None]:
    """Names, within, a layer of another pack as the cause that does not know what newer hosts pass to it."""
    try:
        yield
    except TypeError as error:
        unknown = UNKNOWN_ARGUMENT.search(str(error))
        if unknown is None:
            raise
        raise RuntimeError(
            f"ComfyUI {comfyui_version.__version__} passes {unknown[2]} to layers, which {unknown[1]} does not take, expected "
            f"layers as new as the host: update the pack that loaded this model (ComfyUI-GGUF does so from ComfyUI 0.39 on), or load "
            f"a bf16 or fp8 file."
        ) from error


def check_prompt_width(model: nn.Module, context: Tensor | None) -> None:
    """Raises if the prompt (batch, tokens, width) is another model's text encoder's."""
    expected = getattr(getattr(model, "txt_in", None), "in_features", None)
    if context is not None and expected is not None and context.shape[-1] != expected:
        found, wanted = (describe_text_width(width) for width in (context.shape[-1], expected))
        raise ValueError(
            f"The prompt's rows are {found}, the model expects {wanted}: encode the prompt with the text encoder that belongs to "
            f"this FLUX."
        )
