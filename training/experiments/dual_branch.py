"""Two branches on our own FLUX: what CoLoGen Dual Branch does in the host's samplers, for experiments."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...prw.embedded_host import EmbeddedHost
from ...prw.flux.inputs import EncodedPrompt, FluxInputs
from ...prw.personalization.attention_probe import PROBES, AttentionProbe, add_residuals, observe_attention
from ...prw.personalization.dual_branch import AuxiliaryProbe, BlendSettings, ConceptProbe
from ...prw.personalization.marked_prompt import MarkedTokens
from ...prw.positions import token_grid
from ...prw.weaving import named_blocks
from ..forward import SourceContext, predict_velocity
from ..sampling import SamplingSettings, guide


class Branch(NamedTuple):
    """A batch of prompts whose marked tokens stand at the same places, and the noise that sampling begins with."""

    prompt: EncodedPrompt
    tokens: MarkedTokens
    noise: Tensor


@torch.no_grad()
def sample_two_branches(
    host: EmbeddedHost, concept: Branch, auxiliary: Branch, blend: BlendSettings, settings: SamplingSettings
) -> Tensor:
    """Samples both branches side by side; returns the concept's latents, as the VAE gives them."""
    times, negative = settings.times, settings.negative
    names = [name for name, _ in named_blocks(host.flux)][blend.first : blend.last + 1]
    rows, columns = token_grid(concept.noise, host.flux.patch_size)
    shared = dict(blocks=frozenset(names), picture_length=rows * columns, make_attention=host.make_attention)

    def step(x: Tensor, prompt: EncodedPrompt, i: int, probes: Sequence[AttentionProbe]) -> Tensor:
        t = torch.full((len(x),), float(times[i]), device=x.device)
        guidance = torch.full_like(t, settings.guidance)
        velocity = predict_velocity(host, attach_probes(probes), FluxInputs(x, t, *prompt, guidance))
        if negative is not None:
            plain = predict_velocity(host, attach_probes(()), FluxInputs(x, t, *negative, guidance))
            velocity = guide(velocity, plain, settings.cfg)
        return x + (float(times[i + 1]) - float(times[i])) * velocity.float()

    x, other = concept.noise, auxiliary.noise
    for i in range(len(times) - 1):
        probes = []
        if i < blend.end * (len(times) - 1):
            recorder = AuxiliaryProbe(tokens={0: auxiliary.tokens}, **shared)
            other = step(other, auxiliary.prompt, i, [recorder])
            probes = [ConceptProbe(tokens={0: concept.tokens}, **shared, auxiliary=recorder, blend=blend)]
        x = step(x, concept.prompt, i, probes)
    return host.unscale_latent(x)


def attach_probes(probes: Sequence[AttentionProbe]) -> SourceContext:
    """Gives a context without a source whose attention is probed; all samples share one prompt,
    as the host numbers them."""
    patches = {"attn1_patch": [observe_attention], "attn1_output_patch": [add_residuals]}
    return SourceContext({"patches": patches, PROBES: tuple(probes), "uuids": [0]} if probes else {}, {})
