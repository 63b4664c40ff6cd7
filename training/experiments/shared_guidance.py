"""A step shared between the concept and its superclass on our own FLUX: what CoLoGen Personal Guider does in the host's
samplers, for experiments."""

from collections.abc import Sequence

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
from ..sampling import SamplingSettings, guide
from .dual_branch import Branch, attach_probes


@torch.no_grad()
def sample_shared(
    host: EmbeddedHost,
    concept: EncodedPrompt,
    superclass: Branch,
    shared: SharedStepSettings,
    settings: SamplingSettings,
) -> Tensor:
    """Samples latents, as the VAE gives them, from the superclass's noise."""
    blocks = frozenset(name for name, _ in named_blocks(host.flux))
    rows, columns = token_grid(superclass.noise, host.flux.patch_size)

    def predict(x: Tensor, t: Tensor, prompt: EncodedPrompt, probes: Sequence[NounProbe] = ()) -> Tensor:
        inputs = FluxInputs(x, t, *prompt, torch.full_like(t, settings.guidance))
        return predict_velocity(host, attach_probes(probes), inputs).float()

    def predict_mixed(x: Tensor, t: Tensor) -> Tensor:
        noun = NounProbe({0: superclass.tokens}, blocks, rows * columns, host.make_attention)
        plain = predict(x, t, superclass.prompt, [noun] if shared.is_masked else ())
        weight = shared.weight
        if shared.is_masked:
            height, width = x.shape[-2:]
            area = select_strongest(noun.average(), shared.area)
            weight = weight * expand_to_latent(area, height, width, host.flux.patch_size)
        return mix_predictions(predict(x, t, concept), plain, weight)

    def predict_guided(x: Tensor, t: Tensor, progress: float) -> Tensor:
        if progress < shared.switch or shared.weight == 0:
            velocity = predict(x, t, superclass.prompt)
        elif shared.weight == 1 and not shared.is_masked:
            velocity = predict(x, t, concept)
        else:
            velocity = predict_mixed(x, t)
        if settings.negative is None:
            return velocity
        return guide(velocity, predict(x, t, settings.negative), settings.cfg)

    return host.unscale_latent(sample_euler(predict_guided, superclass.noise, list(settings.times)))
