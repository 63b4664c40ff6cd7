"""A picture for a prompt, with a source or without: Euler's method over the same weaving that training and nodes use."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..prw.attachment import Host
from ..prw.bank.bank import Bank
from ..prw.flux.sampling import euler
from ..prw.source import Routing
from .forward import Woven, velocity, weave

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
    return followed(host, woven, noise, texts, times, guidance, cfg)


@torch.no_grad()
def followed(
    host: Host,
    woven: Sequence[Woven],
    noise: Tensor,
    texts: Sequence[Text],
    times: Sequence[float],
    guidance: float = 1.0,
    cfg: float = 1.0,
) -> Tensor:
    """Latents as the VAE gives them; a second text is what cfg leads away from."""

    def led(x: Tensor, t: Tensor, _) -> Tensor:
        found = [velocity(host, one, x, t, *text, guidance) for one, text in zip(woven, texts)]
        return (found[0] if len(found) == 1 else found[1] + cfg * (found[0] - found[1])).float()

    return host.latent_out(euler(led, noise, list(map(float, times))))
