"""A picture for a source and a prompt: Euler's method over the same weaving that training and nodes use."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..prw.attachment import Host
from ..prw.bank import Bank
from ..prw.source import Routing
from .forward import velocity, weave

Text = tuple[Tensor, Tensor]
"""Context (batch, tokens, width) and pooled (batch, width)."""


@torch.no_grad()
def drawn(
    host: Host,
    bank: Bank,
    routing: Routing,
    source: Tensor,
    noise: Tensor,
    told: Text,
    times: Sequence[float],
    guidance: float = 1.0,
    untold: Text | None = None,
    cfg: float = 1.0,
) -> Tensor:
    """Latents as the VAE gives them, from a source's latents and noise; `untold` is what cfg leads away from."""
    start = torch.zeros(len(noise), device=noise.device)
    texts = [told] if untold is None else [told, untold]
    woven = [weave(host, bank, routing, source, noise, start, pooled) for _, pooled in texts]
    x = noise
    for time, following in zip(times, times[1:]):
        t = torch.full_like(start, float(time))
        found = [velocity(host, one, x, t, *text, guidance) for one, text in zip(woven, texts)]
        led = found[0] if untold is None else found[1] + cfg * (found[0] - found[1])
        x = x + (float(following) - float(time)) * led.float()
    return host.latent_out(x)
