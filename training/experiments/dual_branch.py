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
from ..sampling import SamplingSettings


class Branch(NamedTuple):
    """Prompts whose marked words stand at the same places, and noise to begin with."""

    text: EncodedPrompt
    words: MarkedTokens
    noise: Tensor


@torch.no_grad()
def drawn_beside(
    host: EmbeddedHost,
    concept: Branch,
    auxiliary: Branch,
    blend: BlendSettings,
    settings: SamplingSettings,
) -> Tensor:
    """Sample the concept branch's latents, as the VAE gives them."""
    times, negative = settings.times, settings.negative
    names = [name for name, _ in named_blocks(host.flux)][blend.first : blend.last + 1]
    rows, columns = token_grid(concept.noise, host.flux.patch_size)
    seen = dict(blocks=frozenset(names), picture_length=rows * columns, attend=host.attend)

    def step(x: Tensor, text: EncodedPrompt, i: int, watches: Sequence[AttentionProbe]) -> Tensor:
        t = torch.full((len(x),), float(times[i]), device=x.device)
        guidance = torch.full_like(t, settings.guidance)
        guided = predict_velocity(host, watched(watches), FluxInputs(x, t, *text, guidance))
        if negative is not None:
            plain = predict_velocity(host, watched(()), FluxInputs(x, t, *negative, guidance))
            guided = plain + settings.cfg * (guided - plain)
        return x + (float(times[i + 1]) - float(times[i])) * guided.float()

    x, other = concept.noise, auxiliary.noise
    for i in range(len(times) - 1):
        watches = []
        if i < blend.end * (len(times) - 1):
            beside = AuxiliaryProbe(tokens={0: auxiliary.words}, **seen)
            other = step(other, auxiliary.text, i, [beside])
            watches = [ConceptProbe(tokens={0: concept.words}, **seen, auxiliary=beside, blend=blend)]
        x = step(x, concept.text, i, watches)
    return host.latent_out(x)


def watched(watches: Sequence[AttentionProbe]) -> SourceContext:
    """No source, but somebody who looks on; all samples are of one prompt, by the host's words."""
    hooks = {"attn1_patch": [observe_attention], "attn1_output_patch": [add_residuals]}
    return SourceContext({"patches": hooks, PROBES: tuple(watches), "uuids": [0]} if watches else {}, {})
