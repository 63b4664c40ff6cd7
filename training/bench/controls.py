"""What each added control costs a sampler step: imported ones, alone, several, and beside a routed one.

`peer` is a step as EasyControl's public code takes it once its cache is filled: keys and values are read, but the
condition's tokens still go through every layer, all but attention, and what comes of it is thrown away.
The floor for c sources is plain FLUX with c times as many more keys (inference.py).
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from einops import rearrange

from ...prw.attachment import Attachment, source_vec
from ...prw.bank.bank import Bank
from ...prw.bank.edit import merge, random_bank
from ...prw.bank.importers.easycontrol import KINDS, TARGETS
from ...prw.base_model import Base
from ...prw.config import BankInfo, ExpertInfo
from ...prw.embedded_host import EmbeddedHost, velocity
from ...prw.experts import Weave
from ...prw.router import route
from ...prw.source import Routing, Source
from ...prw.weaving import source_stream
from .inference import Shapes, device_name, inputs, interleaved

STACKS = {
    "one": ("canny",),
    "spatial_spatial": ("canny", "depth"),
    "spatial_subject": ("canny", "subject"),
    "imported_routed": ("canny", ""),
    "three": ("canny", "depth", "subject"),
}
"""Experts of the sources that are used together; "" is the routed one."""


def controls(shapes: Shapes, dtype: torch.dtype, device: str, repeats: int) -> dict:
    flux = shapes.flux(dtype, device)
    bank, args = library(shapes, flux), inputs(shapes, flux, dtype, device)
    steps: dict[str, Callable[[], object]] = {"plain": lambda: velocity(flux, *args)}
    for name, experts in STACKS.items():
        attachment, sources = Attachment(bank), [a_source(shapes, i, expert) for i, expert in enumerate(experts)]
        steps[name] = lambda a=attachment, s=sources: velocity(flux, *args, a, s)
    again = rerun(shapes, flux, args, dtype, device)
    steps["peer"] = lambda: (steps["one"](), again())
    with torch.inference_mode():
        seconds = interleaved(steps, repeats, device)
    ratios = {name: seconds[name] / seconds["plain"] for name in steps}
    floors = {name: 1 + len(experts) * (shapes.floor() - 1) for name, experts in STACKS.items()}
    return {
        "over_plain": ratios,
        "floor": floors,
        "over_floor": {name: ratios[name] / floors[name] for name in STACKS},
        "peer_over_one": ratios["peer"] / ratios["one"],
        "seconds_plain": seconds["plain"],
        "device": device_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "shapes": vars(shapes),
    }


def library(shapes: Shapes, flux) -> Bank:
    """Imported experts of the public files' shape, and routed ones."""
    rank = shapes.rank or max(1, 128 * shapes.width // 3072)
    habits = {name: replace(KINDS[name].habits, side=0) for name in ("canny", "depth", "subject")}
    experts = {name: ExpertInfo(rank=rank, alpha=rank, targets=TARGETS, habits=habits[name]) for name in habits}
    return merge([shapes.bank(flux, ("inpaint", "edit")), random_bank(BankInfo(Base.of(flux), experts), up=0.02)])


def a_source(shapes: Shapes, seed: int, expert: str) -> Source:
    side = shapes.source // 8
    latent = torch.randn(1, 16, side, side, generator=torch.Generator().manual_seed(seed))
    return Source(latent, Routing(task="edit", expert=expert))


def rerun(shapes: Shapes, flux, args: tuple, dtype: torch.dtype, device: str) -> Callable[[], object]:
    """The condition's tokens through all layers but attention."""
    host = EmbeddedHost(flux, dtype)
    x, _, _, pooled, guidance = args
    latent = a_source(shapes, 0, "canny").latent.to(device, dtype)
    h, vec = flux.img_in(host.tokens(latent)[0]), source_vec(host, torch.zeros_like(guidance), pooled, guidance)
    nothing = Weave(route(h[:, :1], h.new_zeros(h.shape[-1], 1)), {})

    def kept(q, k, v):
        return rearrange(v, "B H L D -> B L (H D)")  # stands for the attention output that they keep

    def again():
        for _ in source_stream(flux, h, vec, kept, lambda block, tokens: nothing):
            pass

    return again
