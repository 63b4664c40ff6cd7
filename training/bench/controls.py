"""What each added control costs a sampler step: imported ones, alone, several, and beside a routed one.

`peer` is a step as EasyControl's public code takes it once its cache is filled: keys and values are read, but the
condition's tokens still go through every layer, all but attention, and what comes of it is thrown away.
The floor for c sources is plain FLUX with c times as many more keys (inference.py).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from einops import rearrange
from torch import Tensor

from ...prw.attachment import Attachment
from ...prw.bank.bank import Bank
from ...prw.bank.edit import make_random_bank, merge
from ...prw.bank.importers.easycontrol import KINDS, TARGETS
from ...prw.base_model import Base
from ...prw.config import BankInfo, ExpertInfo
from ...prw.embedded_host import EmbeddedHost, velocity
from ...prw.experts import BlockExperts
from ...prw.flux.families import Flux
from ...prw.flux.inputs import FluxInputs, SourceConditions
from ...prw.router import route
from ...prw.source import Routing
from ...prw.weaving import run_source_stream
from .shapes import Shapes
from .timing import describe_run, time_in_turn

STACKS = {
    "one": ("canny",),
    "spatial_spatial": ("canny", "depth"),
    "spatial_subject": ("canny", "subject"),
    "imported_routed": ("canny", ""),
    "three": ("canny", "depth", "subject"),
}
"""Experts of the sources that are used together; "" is the routed one."""


def bench_controls(shapes: Shapes, dtype: torch.dtype, device: str, repeats: int) -> dict:
    """Measures each stack's step over a plain one and over its floor, and the peer's over ours."""
    flux = shapes.make_flux(dtype, device)
    bank, inputs = make_bank(shapes, flux), shapes.make_inputs(flux, dtype, device)
    steps: dict[str, Callable[[], object]] = {"plain": lambda: velocity(flux, *inputs)}
    for name, experts in STACKS.items():
        sources = [shapes.make_source(Routing(task="edit", expert=expert), i) for i, expert in enumerate(experts)]
        steps[name] = partial(velocity, flux, *inputs, attachment=Attachment(bank), sources=sources)
    rerun_source = make_peer(shapes, flux, inputs, dtype)
    steps["peer"] = lambda: (steps["one"](), rerun_source())
    with torch.inference_mode():
        seconds = time_in_turn(steps, repeats, device)
    ratios = {name: seconds[name] / seconds["plain"] for name in steps}
    floors = {name: 1 + len(experts) * (shapes.floor() - 1) for name, experts in STACKS.items()}
    return {
        "over_plain": ratios,
        "floor": floors,
        "over_floor": {name: ratios[name] / floors[name] for name in STACKS},
        "peer_over_one": ratios["peer"] / ratios["one"],
        "seconds_plain": seconds["plain"],
        **describe_run(shapes, device, dtype),
    }


def make_bank(shapes: Shapes, flux: Flux) -> Bank:
    """Makes imported experts of the public files' shape, and routed ones."""
    rank = shapes.expert_rank
    habits = {name: replace(KINDS[name].source_format, side=0) for name in ("canny", "depth", "subject")}
    experts = {name: ExpertInfo(rank=rank, alpha=rank, targets=TARGETS, habits=habits[name]) for name in habits}
    imported = make_random_bank(BankInfo(Base.of(flux), experts), up=0.02)
    return merge([shapes.make_bank(flux, ("inpaint", "edit")), imported])


def make_peer(shapes: Shapes, flux: Flux, inputs: FluxInputs, dtype: torch.dtype) -> Callable[[], None]:
    """Makes a call that takes the condition's tokens through all layers but attention."""
    host, guidance = EmbeddedHost(flux, dtype), inputs.guidance
    latent = shapes.make_source(seed=0).latent.to(inputs.x)
    h = flux.img_in(host.tokenize(latent)[0])
    conditions = SourceConditions(torch.zeros_like(inputs.times), inputs.pooled, guidance)
    modulation = host.family.modulate_source(flux, conditions, host.dtype)
    nothing = BlockExperts(route(h[:, :1], h.new_zeros(h.shape[-1], 1)), {})

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return rearrange(v, "B H L D -> B L (H D)")  # stands for the attention output that they keep

    def rerun_source() -> None:
        for _ in run_source_stream(flux, h, modulation, attend, lambda block, tokens: nothing):
            pass

    return rerun_source
