"""A picture drawn along with its features on our own FLUX: what CoLoGen Features does in the host's samplers, for
experiments.

    v = v_off + weight (v_on - v_off)        without and with the tokens (ReDi); 1 needs no pass without them
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...prw.attachment import Host
from ...prw.bank.bank import Bank
from ...prw.coredi.feature_stream import FeatureStream, last_tokens
from ...prw.coredi.features import WAYS, Features, begun, pooling
from ...prw.flux.sampling import euler
from ...prw.positions import token_grid
from ...prw.source import Routing
from ..forward import velocity, weave
from ..sampling import Text


@torch.no_grad()
def drawn_along(
    known: Sequence[Features],
    weight: float,
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
    seed: int = 0,
) -> Tensor:
    """drawing.drawn with the features of its task, which begin with noise of their own."""
    (features,) = (each.to(noise.device) for each in known if each.info.task == routing.task)
    start, pool = noise.new_zeros(len(noise)), pooling(*token_grid(noise, host.flux.patch_size)).to(noise.device)
    shape, generator = (len(noise), len(pool), features.info.size), torch.Generator().manual_seed(seed)
    state = WAYS[features.info.way](features.tensors, torch.randn(shape, generator=generator).to(noise.device))
    woven = [weave(host, bank, routing, source, noise, start, text[1]) for text in (told, untold) if text]

    def on(x: Tensor, t: Tensor) -> Tensor:
        z, stream = state.at(float(t[0])), None
        if z is not None:
            given = begun(features.tensors, z), x, t, told[1], torch.full_like(t, guidance)
            stream = FeatureStream(host, bank, routing, woven[0].routes, *given)
        with last_tokens(host.flux) as heard:
            found = velocity(host, woven[0].followed_by([stream] if stream else []), x, t, *told, guidance)
        state.hear(stream and stream.left, heard[0], pool)
        return found.float()

    def led(x: Tensor, t: Tensor, _) -> Tensor:
        found = on(x, t)
        if weight != 1:
            plain = velocity(host, woven[0], x, t, *told, guidance).float()
            found = plain + weight * (found - plain)
        if untold is not None:
            plain = velocity(host, woven[1], x, t, *untold, guidance).float()
            found = plain + cfg * (found - plain)
        return found

    return host.latent_out(euler(led, noise, list(map(float, times))))
