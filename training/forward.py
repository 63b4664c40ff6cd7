"""FLUX with a source, as training and our own sampling see it: the paper's weaving with gradients and router noise.

run_source runs the source through FLUX's blocks (paper, eq. 4 to 7), predict_velocity lets the noisy latents read it;
make_source_reader runs it as often as a sampler needs it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..prw.appended_kv import OPTION, AppendedKV, KnownKV, SourceKV, append_sources_patch
from ..prw.flux.blocks import RUN_BLOCK, call_directly
from ..prw.flux.families import find_model_family
from ..prw.flux.inputs import FluxInputs
from ..prw.router import Route
from ..prw.select_experts import BlockNoise, ExpertBank, make_selector
from ..prw.source import Routing, Source, count_latent_channels, fill_channels
from ..prw.source_pass import Host, ReaderConditions, SourcePicture, run_source_pass
from ..prw.weaving import BlockKV
from .given_channels import add_given_channels


class SourceContext(NamedTuple):
    """A source after its pass through FLUX."""

    options: dict[str, Any]
    """transformer_options for FLUX's forward: what every block appends."""
    routes: dict[str, Route]
    """The expert and gate of every block."""

    def with_patches(self, patches: Sequence[Callable]) -> "SourceContext":
        """Adds attention patches behind the one that appends the source."""
        if not patches:
            return self
        known = self.options.get("patches", {}).get("attn1_patch", ())
        return SourceContext({**self.options, "patches": {"attn1_patch": [*known, *patches]}}, self.routes)


class LiveSourceKV(SourceKV):
    """A source's K/V of a whole batch, still connected to what they were computed from."""

    def __init__(self, stream: list[BlockKV], pe: Tensor, source: Source):
        super().__init__(source, pe)
        self.kv = {kv.block: (kv.k, kv.v) for kv in stream}

    def read(self, block: str, device: torch.device, known: KnownKV | None = None) -> tuple[Tensor, Tensor]:
        return self.kv[block]


def run_source(
    host: Host,
    bank: ExpertBank,
    routing: Routing,
    source: Tensor,
    inputs: FluxInputs,
    noise: BlockNoise | None = None,
    checkpointing_options: dict[str, Any] | None = None,
) -> SourceContext:
    """Runs source latents (as the VAE gives them) through FLUX beside the noisy latents of `inputs`.

    `noise` is the router's. `checkpointing_options` make the host recompute its blocks' activations; the source's pass
    follows them by RUN_BLOCK.
    """
    x, options = inputs.x, checkpointing_options or {}
    latents = fill_channels(host.scale_latent(source), count_latent_channels(host.flux)).to(x.device, host.dtype)
    select, run = make_selector(bank, routing, noise), options.get(RUN_BLOCK, call_directly)
    readers = ReaderConditions.of(host, inputs)
    blocks, pe = run_source_pass(host, bank, routing, select, [SourcePicture(latents)], readers, run)
    stream = list(blocks)
    appended = AppendedKV([LiveSourceKV(stream, pe, Source(source[:1], routing))], readers.grid)
    options = {OPTION: appended, "patches": {"attn1_patch": [_append]}, **options}
    return SourceContext(options, {kv.block: kv.route for kv in stream})


ReadSource = Callable[[FluxInputs], SourceContext]
"""From what FLUX is asked in a sampler step to the source's context for it."""


def make_source_reader(host: Host, bank: ExpertBank, routing: Routing, source: Tensor) -> ReadSource:
    """Makes what samplers read a source by: it runs once,
    or in every step where the bank's sources follow the timestep."""
    known: list[SourceContext] = []

    def read(inputs: FluxInputs) -> SourceContext:
        if not known or bank.info.source.follows_time:
            known[:] = [run_source(host, bank, routing, source, inputs)]
        return known[0]

    return read


def skip_source(host: Host, x: Tensor, checkpointing_options: dict[str, Any] | None = None) -> SourceContext:
    """Gives the context of a forward without a source."""
    host.tokenize(x[:1])  # tells a host that a pass begins
    return SourceContext(dict(checkpointing_options or {}), {})


def make_skipping_reader(host: Host) -> ReadSource:
    """Makes what samplers read by where there is no source."""
    return lambda inputs: skip_source(host, inputs.x)


def predict_velocity(host: Host, source: SourceContext, inputs: FluxInputs) -> Tensor:
    """Predicts FLUX's velocity for noisy latents that read the source;
    a base without a guidance embedding ignores guidance."""
    x, context = add_given_channels(host, inputs.x).to(host.dtype), inputs.context.to(host.dtype)
    pooled = None if inputs.pooled is None else inputs.pooled.to(host.dtype)
    guidance = inputs.guidance if find_model_family(host.flux).reads_guidance(host.flux.params) else None
    return host.flux(x, inputs.times, context, pooled, guidance, transformer_options=dict(source.options))


@torch.compiler.disable()
def _append(*args, **kwargs) -> dict:
    # traced, it would make every block a graph of its own, until torch gives up
    return append_sources_patch(*args, **kwargs)


def run_checkpointed(step: Callable, *args):
    """Calls `step` now and once more for its gradient, so that its activations need not wait in memory."""
    return checkpoint(step, *args, use_reentrant=False)


EMBEDDED_CHECKPOINTING = {RUN_BLOCK: run_checkpointed}
"""Checkpointing options of our own FLUX: every block is checkpointed."""


class RouterNoise:
    """The router's noise for every sample, from the sample's own seed: the same on any number of ranks.

    A block's numbers are remembered, so that a checkpointed block that runs twice sees them again.
    """

    def __init__(self, seeds: Sequence[int], scale: float = 1.0):
        self.generators = [torch.Generator().manual_seed(seed + 1) for seed in seeds]
        self.scale = scale
        self.by_block: dict[str, Tensor] = {}

    def __call__(self, block: str, like: Tensor) -> Tensor:
        if block not in self.by_block:
            rows = [torch.randn(like.shape[1:], generator=generator) for generator in self.generators]
            self.by_block[block] = torch.stack(rows).to(like) * self.scale
        return self.by_block[block]
