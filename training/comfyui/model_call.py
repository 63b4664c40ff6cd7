"""Single forwards of a MODEL, called as the host's samplers call it."""

from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sampler_helpers
from torch import Tensor

from ...prw.flux.inputs import FluxInputs


def load_on_device(model) -> None:
    """Loads a MODEL as a sampler does before its first step."""
    comfy.model_management.load_models_gpu([model])
    model.model.current_patcher = model


def bind_model_call(model, inputs: FluxInputs, **conds: Any) -> Callable[[], Tensor]:
    """Gives one forward by the host's apply_model, through the wrappers of MODEL;
    `conds` are conditions besides the prompt."""
    options = comfy.model_patcher.create_model_options_clone(model.model_options)
    comfy.sampler_helpers.prepare_model_patcher(model, {}, options)
    options = {**options["transformer_options"], "cond_or_uncond": [0], "sigmas": inputs.times}
    conds = {"y": inputs.pooled, "guidance": inputs.guidance, "transformer_options": options, **conds}
    return lambda: model.model.apply_model(inputs.x, inputs.times, c_crossattn=inputs.context, **conds)


def cache_references(model):
    """Gives a clone with the host's own cache of reference latents, its node FluxKVCache;
    None where the host has none."""
    import comfy_extras.nodes_flux

    node = getattr(comfy_extras.nodes_flux, "FluxKVCache", None)
    return None if node is None else node.execute(model)[0]
