"""A step shared between the concept and its superclass on our own FLUX: what CoLoGen Personal Guider does in the host's
samplers, for experiments."""

import torch
from torch import Tensor

from ...prw.embedded_host import EmbeddedHost
from ...prw.flux.inputs import EncodedPrompt, FluxInputs
from ...prw.flux.sampling import sample_euler
from ...prw.personalization.shared_guidance import (
    NounProbe,
    SharedStepSettings,
    expand_to_latent,
    mix_predictions,
    select_strongest,
)
from ...prw.positions import token_grid
from ...prw.weaving import named_blocks
from ..forward import predict_velocity
from ..sampling import SamplingSettings
from .dual_branch import Branch, watched


@torch.no_grad()
def drawn_shared(
    host: EmbeddedHost,
    concept: EncodedPrompt,
    superclass: Branch,
    plan: SharedStepSettings,
    settings: SamplingSettings,
) -> Tensor:
    """Sample latents, as the VAE gives them, from the superclass's noise."""
    blocks = frozenset(name for name, _ in named_blocks(host.flux))
    rows, columns = token_grid(superclass.noise, host.flux.patch_size)

    def shared(x: Tensor, t: Tensor, plan: SharedStepSettings) -> Tensor:
        noun = NounProbe({0: superclass.words}, blocks, rows * columns, host.attend)
        plain = predict(x, t, superclass.text, [noun] if plan.is_masked else [])
        weight = plan.weight
        if plan.is_masked:
            height, width = x.shape[-2:]
            area = select_strongest(noun.average(), plan.area)
            weight = weight * expand_to_latent(area, height, width, host.flux.patch_size)
        return mix_predictions(predict(x, t, concept), plain, weight)

    def predict(x: Tensor, t: Tensor, text: EncodedPrompt, probes: list[NounProbe] | None = None) -> Tensor:
        inputs = FluxInputs(x, t, *text, torch.full_like(t, settings.guidance))
        return predict_velocity(host, watched(probes or []), inputs).float()

    def led(x: Tensor, t: Tensor, progress: float) -> Tensor:
        if progress < plan.switch or plan.weight == 0:
            found = predict(x, t, superclass.text)
        elif plan.weight == 1 and not plan.is_masked:
            found = predict(x, t, concept)
        else:
            found = shared(x, t, plan)
        if settings.negative is None:
            return found
        plain = predict(x, t, settings.negative)
        return plain + settings.cfg * (found - plain)

    return host.latent_out(sample_euler(led, superclass.noise, list(settings.times)))
