"""What the routers of a MODEL's bank choose for the sources of a prompt, and what their older experts change."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import comfy.model_management
import torch
from torch import Tensor

from ..appended_kv import CachedSourceKV
from ..config import BankInfo
from ..find_experts import find_model, find_router
from ..flux.families import find_model_family
from ..flux.inputs import FluxInputs
from ..router import ABLATIONS, Route
from ..source import Routing, Source, count_latent_channels
from .conditioning import list_sources, map_sources
from .patch import require_attachment


class SourceRoutes(NamedTuple):
    """What the routers chose for one source."""

    title: str
    experts: tuple[str, ...]
    """Names in column order."""
    routes: dict[str, Route]
    """By block."""
    changes: dict[str, dict[str, float]]
    """Row of ABLATIONS -> block -> how far its keys and values are from those as routed, in parts of their size."""


def compute_routes(model, conditioning: list, latent: Tensor, ablate: bool = False) -> list[SourceRoutes]:
    """Computes the routes of every source, and with `ablate` what older experts change.

    Runs the sources alone: without noise their routes are the sampler's.
    """
    attachment = require_attachment(model)
    conditioning = [(context, map_sources(options, attachment.fit_source)) for context, options in conditioning]
    comfy.model_management.load_models_gpu([model])
    transformer_options, routes = model.model_options.get("transformer_options", {}), []
    family = find_model_family(model.model.diffusion_model)
    channels = count_latent_channels(model.model.diffusion_model)
    model.pre_run()
    try:
        for context, options in conditioning:
            x = torch.zeros(1, family.latent_channels, *latent.shape[-2:], device=model.load_device)
            pooled = options.get("pooled_output")
            pooled = None if pooled is None else pooled[:1].to(x.device)
            guidance = options.get("guidance")
            guidance = None if guidance is None else x.new_full((1,), guidance)
            inputs = FluxInputs(x, x.new_zeros(1), context, pooled, guidance)
            for source in (one for one in list_sources(options) if isinstance(one, Source)):
                title = f"{source.routing.task}, source {len(routes) + 1}"
                if reason := _describe_unrouted(attachment.bank.info, source.routing):
                    routes.append(SourceRoutes(f"{title}: {reason}", (), {}, {}))
                    continue

                def run(one: Source, inputs: FluxInputs = inputs) -> CachedSourceKV:
                    made = attachment.make_appended_kv(model.model, [one], inputs, transformer_options, channels)
                    return next(kv for kv in made.sources if isinstance(kv, CachedSourceKV))

                _, columns = find_router(attachment.bank.info, source.routing)
                routed = run(source)
                changes = compare_ablations(run, source, routed, x.device) if ablate else {}
                routes.append(SourceRoutes(title, columns.experts, routed.routes(), changes))
    finally:
        model.cleanup()
    return routes


def _describe_unrouted(info: BankInfo, routing: Routing) -> str:
    """Describes why a source takes no routes; "" if it does."""
    if model := find_model(info, routing):
        return f"read by the whole model {model}, which has no router"
    return "" if info.experts else "no experts, read with FLUX's own weights"


def compare_ablations(
    run: Callable[[Source], CachedSourceKV], source: Source, routed: CachedSourceKV, device: torch.device
) -> dict[str, dict[str, float]]:
    """Compares how far each block's keys and values move if older experts' blocks go to another;
    earlier blocks' changes included."""
    changes: dict[str, dict[str, float]] = {}
    for way in ABLATIONS:
        ablated = run(replace(source, routing=replace(source.routing, older=way)))
        changes[way] = {}
        for block in routed.routes():
            before, after = (torch.stack(kv.read(block, device)).float() for kv in (routed, ablated))
            changes[way][block] = float((after - before).norm() / before.norm().clamp(min=1e-9))
    return changes
