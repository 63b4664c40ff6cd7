"""A step shared between the concept and its superclass on our own FLUX: what CoLoGen Personal Guider does in the host's
samplers, for experiments."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...prw.embedded_host import EmbeddedHost
from ...prw.flux.sampling import euler
from ...prw.personalization.shared_guidance import (
    NounProbe,
    SharedStepSettings,
    expand_to_latent,
    mix_predictions,
    select_strongest,
)
from ...prw.positions import token_grid
from ...prw.weaving import named_blocks
from ..forward import velocity
from ..sampling import Text
from .dual_branch import Branch, watched


@torch.no_grad()
def drawn_shared(
    host: EmbeddedHost,
    concept: Text,
    superclass: Branch,
    times: Sequence[float],
    plan: SharedStepSettings,
    guidance: float = 1.0,
    untold: Text | None = None,
    cfg: float = 1.0,
) -> Tensor:
    """Latents as the VAE gives them, from the superclass's noise; `untold` is what cfg leads away from."""
    blocks = frozenset(name for name, _ in named_blocks(host.flux))
    rows, columns = token_grid(superclass.noise, host.flux.patch_size)

    def shared(x: Tensor, t: Tensor, plan: SharedStepSettings) -> Tensor:
        noun = NounProbe({0: superclass.words}, blocks, rows * columns, host.attend)
        plain = velocity(host, watched([noun] if plan.is_masked else ()), x, t, *superclass.text, guidance).float()
        weight = plan.weight
        if plan.is_masked:
            weight = weight * expand_to_latent(
                select_strongest(noun.average(), plan.area), *x.shape[-2:], host.flux.patch_size
            )
        return mix_predictions(alone(x, t, concept), plain, weight)

    def alone(x: Tensor, t: Tensor, text: Text) -> Tensor:
        return velocity(host, watched(()), x, t, *text, guidance).float()

    def led(x: Tensor, t: Tensor, progress: float) -> Tensor:
        if progress < plan.switch or plan.weight == 0:
            found = alone(x, t, superclass.text)
        elif plan.weight == 1 and not plan.is_masked:
            found = alone(x, t, concept)
        else:
            found = shared(x, t, plan)
        if untold is None:
            return found
        plain = alone(x, t, untold)
        return plain + cfg * (found - plain)

    return host.latent_out(euler(led, superclass.noise, list(times)))
