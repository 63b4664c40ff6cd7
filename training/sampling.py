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
from .forward import SourceContext, predict_velocity, run_source


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
    """Sample latents (as the VAE gives them) that read a source's latents, from noise."""
    start = torch.zeros(len(noise), device=noise.device)
    prompts = [prompt] if settings.negative is None else [prompt, settings.negative]
    contexts = [run_source(host, bank, routing, source, FluxInputs(noise, start, *each)) for each in prompts]
    return sample_with_contexts(host, contexts, noise, prompt, settings)


@torch.no_grad()
def sample_with_contexts(
    host: Host, contexts: Sequence[SourceContext], noise: Tensor, prompt: EncodedPrompt, settings: SamplingSettings
) -> Tensor:
    """Sample latents (as the VAE gives them) with contexts for the prompt and, where there is one, the negative."""

    def predict(context: SourceContext, x: Tensor, t: Tensor, prompt: EncodedPrompt) -> Tensor:
        return predict_velocity(host, context, FluxInputs(x, t, *prompt, torch.full_like(t, settings.guidance)))

    def predict_guided(x: Tensor, t: Tensor, progress: float) -> Tensor:
        velocity = predict(contexts[0], x, t, prompt)
        if settings.negative is not None:
            negative = predict(contexts[1], x, t, settings.negative)
            velocity = negative + settings.cfg * (velocity - negative)
        return velocity.float()

    return host.unscale_latent(sample_euler(predict_guided, noise, list(map(float, settings.times))))
