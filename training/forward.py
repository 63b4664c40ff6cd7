"""FLUX with a source, as training sees it: the inference's own weaving, with gradients and with the router's noise."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..prw.appended_kv import OPTION, Appendix, append_here
from ..prw.attachment import Host, source_pass
from ..prw.bank.bank import Bank
from ..prw.flux.blocks import RUN_BLOCK, straight
from ..prw.positions import Grid, token_grid
from ..prw.router import Route
from ..prw.select_experts import BlockNoise, picker
from ..prw.source import Routing, Source, fill_channels
from ..prw.weaving import BlockKV, named_blocks


def device_of(host: Host) -> torch.device:
    """Where it computes; weights that a host has put aside may lie elsewhere."""
    return getattr(host, "device", None) or next(host.flux.parameters()).device


class Woven(NamedTuple):
    """A source after its pass through FLUX: what every block will append, and how it was routed."""

    options: dict
    """transformer_options for FLUX's forward."""
    routes: dict[str, Route]

    def followed_by(self, patches: Sequence[Callable]) -> "Woven":
        """With patches of attention behind its own."""
        every = {"attn1_patch": [*self.options.get("patches", {}).get("attn1_patch", ()), *patches]}
        return Woven({**self.options, "patches": every}, self.routes) if patches else self


def unwoven(host: Host, x: Tensor, spare: dict[str, Any] | None = None) -> Woven:
    """No source at all; a host hears here that a pass begins."""
    host.tokens(x[:1])
    return Woven(dict(spare or {}), {})


class LivePart:
    """A source's K/V of a whole batch, still connected to what they were computed from."""

    def __init__(self, stream: list[BlockKV], pe: Tensor, source: Source):
        self.kv = {kv.block: (kv.k, kv.v) for kv in stream}
        self.pe, self.source, self.tokens = pe, source, pe.shape[2]

    def read(self, block: str, device: torch.device) -> tuple[Tensor, Tensor]:
        return self.kv[block]


def weave(
    host: Host,
    bank: Bank,
    routing: Routing,
    latents: Tensor,
    x: Tensor,
    times: Tensor,
    pooled: Tensor,
    noise: BlockNoise | None = None,
    spare: dict[str, Any] | None = None,
) -> Woven:
    """Runs source latents (as the VAE gives them) beside targets x.

    `spare`, options that make the host give up its blocks' activations, does so for the source, too: by RUN_BLOCK.
    """
    grid = Grid.of(host.tokens(x[:1])[1][0], *token_grid(x, host.flux.patch_size))
    inner = fill_channels(host.latent_in(latents), x.shape[1]).to(x.device, host.dtype)
    pick = picker(bank, routing, noise)
    run = (spare or {}).get(RUN_BLOCK, straight)
    stream, pe = source_pass(host, bank, routing, pick, inner, grid, times, pooled, run=run)
    stream = list(stream)
    appendix = Appendix([LivePart(stream, pe, Source(latents[:1], routing))], grid)
    options = {OPTION: appendix, "patches": {"attn1_patch": [append]}, **(spare or {})}
    return Woven(options, {kv.block: kv.route for kv in stream})


def velocity(
    host: Host, woven: Woven, x: Tensor, times: Tensor, context: Tensor, pooled: Tensor, guidance: float
) -> Tensor:
    """What FLUX predicts for noisy latents x that read the source."""
    asked = torch.full_like(times, guidance) if host.flux.params.guidance_embed else None
    x, context, pooled = (part.to(host.dtype) for part in (x, context, pooled))
    return host.flux(x, times, context, pooled, asked, transformer_options=dict(woven.options))


def rerun(step: Callable, *args):
    """Calls it now and, for the gradient, once more: its activations need not wait in memory."""
    return checkpoint(step, *args, use_reentrant=False)


def compile_blocks(flux: nn.Module, backend: str = "inductor") -> None:
    """torch.compile for our own FLUX; the source's pass calls the blocks' layers one by one and stays as it is."""
    for _, block in named_blocks(flux):
        block.compile(backend=backend)


@torch.compiler.disable()
def append(*args, **kwargs) -> dict:
    # traced, it would make every block a graph of its own, until torch gives up
    return append_here(*args, **kwargs)


SPARE_EMBEDDED = {RUN_BLOCK: rerun}
"""For our own FLUX: every block is checkpointed."""


class SlotNoise:
    """The router's noise of every sample, from the sample's own seed: the same on any number of ranks.

    A block's numbers are remembered, so that a checkpointed block that runs twice sees them again.
    """

    def __init__(self, seeds: Sequence[int], scale: float = 1.0):
        self.generators = [torch.Generator().manual_seed(seed + 1) for seed in seeds]
        self.scale = scale
        self.drawn: dict[str, Tensor] = {}

    def __call__(self, block: str, like: Tensor) -> Tensor:
        if block not in self.drawn:
            rows = [torch.randn(like.shape[1:], generator=generator) for generator in self.generators]
            self.drawn[block] = torch.stack(rows).to(like) * self.scale
        return self.drawn[block]
