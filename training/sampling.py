"""Pictures for prompts, with a source or without: Euler's method over the same weaving that training and nodes use."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..prw.bank.bank import Bank
from ..prw.flux.inputs import EncodedPrompt, FluxInputs
from ..prw.flux.sampling import sample_euler
from ..prw.source import Routing
from ..prw.source_pass import Host
from .forward import ReadSource, make_skipping_reader, make_source_reader, predict_velocity


@dataclass(frozen=True, eq=False)
class SamplingSettings:
    """How latents are sampled."""

    times: Sequence[float]
    """Timesteps from 1 (noise) to 0 (picture), one more than there are steps."""
    guidance: float = 1.0
    """For a distilled base's guidance embedding."""
    cfg: float = 1.0
    """Scale of classifier-free guidance; without a negative prompt it does nothing."""
    negative: EncodedPrompt | None = None
    guided_by_source: bool = False
    """Whether the negative prompt reads no source: guidance then moves towards the source as well as towards the prompt."""


def guide(velocity: Tensor, without: Tensor, scale: float) -> Tensor:
    """Moves a velocity away from the one without what guides it: classifier-free guidance."""
    return without + scale * (velocity - without)


@torch.no_grad()
def sample_latents(
    host: Host,
    bank: Bank,
    routing: Routing,
    source: Tensor,
    noise: Tensor,
    prompt: EncodedPrompt,
    settings: SamplingSettings,
) -> Tensor:
    """Samples latents (as the VAE gives them) that read a source's latents, from noise."""
    return sample_with_readers(host, make_readers(host, bank, routing, source, settings), noise, prompt, settings)


def make_readers(
    host: Host, bank: Bank, routing: Routing, source: Tensor, settings: SamplingSettings
) -> list[ReadSource]:
    """Makes what the prompt reads a source by, and what the negative does."""
    positive, negative = (make_source_reader(host, bank, routing, source) for _ in range(2))
    return [positive, make_skipping_reader(host) if settings.guided_by_source else negative]


@torch.no_grad()
def sample_with_readers(
    host: Host, readers: Sequence[ReadSource], noise: Tensor, prompt: EncodedPrompt, settings: SamplingSettings
) -> Tensor:
    """Samples latents (as the VAE gives them) that read a source for the prompt and, where there is one,
    the negative."""

    def predict(read: ReadSource, x: Tensor, t: Tensor, prompt: EncodedPrompt) -> Tensor:
        inputs = FluxInputs(x, t, *prompt, torch.full_like(t, settings.guidance))
        return predict_velocity(host, read(inputs), inputs)

    def predict_guided(x: Tensor, t: Tensor, progress: float) -> Tensor:
        velocity = predict(readers[0], x, t, prompt)
        if settings.negative is not None:
            negative = predict(readers[1], x, t, settings.negative)
            velocity = guide(velocity, negative, settings.cfg)
        return velocity.float()

    return host.unscale_latent(sample_euler(predict_guided, noise, list(map(float, settings.times))))
