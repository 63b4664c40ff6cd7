"""What a source costs: seconds a step, as ratios in one run.

`plain` is FLUX without a source. `cached` is a step that reads a source's K/V, `source_pass` makes them,
`uncached` does both. `concat` is what others do: the source's tokens join the picture's as queries (in
ComfyUI the host's own ReferenceLatent path; on the embedded FLUX a picture of that many more tokens).
`host_cache` is a step of ComfyUI's FluxKVCache after its first, which is one like `concat`.
All of them use torch's attention, which is what the host takes on GPUs.

The floor is arithmetic. With N text and image tokens, S source tokens and width d a block needs
L N d^2 multiplications for its layers (L = 12 in FLUX.1, 13 in FLUX.2, whose MLP is gated) and 2 N^2 d for
attention; longer keys add 2 N S d. So floor = 1 + 2 S / (L d + 2 N).

Ratios are medians of those within a round; `spread` has the lowest and highest.
"""

import statistics

import torch

from ...prw.attachment import Attachment
from ...prw.embedded_host import EmbeddedHost, velocity
from ...prw.flux.families import FLUX2
from .shapes import Shapes
from .timing import Steps, compare_rounds, describe_run, measure_peaks, take_medians, time_rounds

RATIOS = (("cached", "plain"), ("concat", "cached"), ("host_cache", "cached"), ("source_pass", "plain"))


def bench_inference(shapes: Shapes, dtype: torch.dtype, device: str, host: str, repeats: int) -> dict:
    """Measures seconds of each way on a host ("embedded" or "comfyui"), their ratios and what they were measured on."""
    steps = (_embedded_steps if host == "embedded" else _comfyui_steps)(shapes, dtype, device)
    with torch.inference_mode():
        rounds, memory = time_rounds(steps, repeats, device), measure_peaks(steps, device)
    parts = {f"{a}_over_{b}": compare_rounds(rounds, a, b) for a, b in RATIOS if {a, b} <= rounds.keys()}
    ratios = {name: statistics.median(values) for name, values in parts.items()}
    return {
        **take_medians(rounds),
        "floor": shapes.floor(),
        **ratios,
        "cached_over_floor": ratios["cached_over_plain"] / shapes.floor(),
        "spread": {name: f"{min(values):.4g} to {max(values):.4g}" for name, values in parts.items()},
        "kv_mib": shapes.kv_bytes(dtype) / 2**20,
        "peak_mib": memory,
        "host": host,
        **describe_run(shapes, device, dtype),
    }


def _embedded_steps(shapes: Shapes, dtype: torch.dtype, device: str) -> Steps:
    flux = shapes.make_flux(dtype, device)
    bank, source = shapes.make_bank(flux), shapes.make_source()
    inputs = shapes.make_inputs(flux, dtype, device)
    longer = shapes.make_inputs(flux, dtype, device, more_height=shapes.source**2 // shapes.target)
    cached, uncached, alone = Attachment(bank), Attachment(bank, cached=False), Attachment(bank, cached=False)
    return {
        "plain": lambda: velocity(flux, *inputs),
        "concat": lambda: velocity(flux, *longer),
        "uncached": lambda: velocity(flux, *inputs, attachment=uncached, sources=[source]),
        "cached": lambda: velocity(flux, *inputs, attachment=cached, sources=[source]),
        "source_pass": lambda: alone.prepare(EmbeddedHost(flux, dtype), [source], inputs),
    }


def _comfyui_steps(shapes: Shapes, dtype: torch.dtype, device: str) -> Steps:
    from ...prw.comfyui.conditioning import COND, Sources
    from ...prw.comfyui.patch import apply_bank, require_attachment
    from ..comfyui.enter_host import load_model
    from ..comfyui.model_call import bind_model_call, cache_references, load_on_device

    flux = shapes.make_flux(dtype, "cpu")
    bank, source = shapes.make_bank(flux), shapes.make_source()
    inputs = shapes.make_inputs(flux, dtype, device)
    model = load_model(flux.state_dict(), dtype)
    patched, uncached = apply_bank(model, bank), apply_bank(model, bank)
    attachment = require_attachment(uncached)
    attachment.cached = False
    load_on_device(model)
    reference = model.model.process_latent_in(source.latent).to(device)
    without_guidance = inputs._replace(guidance=None)
    steps = {
        "plain": bind_model_call(model, inputs),
        "concat": bind_model_call(model, inputs, ref_latents=[reference]),
        "uncached": bind_model_call(uncached, inputs, **{COND: Sources([source])}),
        "cached": bind_model_call(patched, inputs, **{COND: Sources([source])}),
        "source_pass": lambda: attachment.make_appended_kv(model.model, [source], without_guidance, {}),
    }
    theirs = cache_references(model) if shapes.family == FLUX2.name else None  # on FLUX.1 it fails in the host
    if theirs is not None:
        # the node sets this method where the host loads its MODEL, which all steps here share
        conds = dict(ref_latents=[reference], ref_latents_method="index_timestep_zero")
        steps["host_cache"] = bind_model_call(theirs, inputs, **conds)
    return steps
