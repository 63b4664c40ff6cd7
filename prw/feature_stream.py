"""A third stream beside text and picture: tokens of features, which see everything and which the picture reads.

In every block they go through FLUX's image-side weights, as the source does, and the source's routed expert bends their
keys and values, too. They see text, picture, source and themselves; the source does not see them, nor any noise.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .attachment import Host, source_vec
from .bank import Bank
from .experts import Weave
from .features import pooling
from .flux_math import rotary
from .pick import chosen, columns_of, strengths
from .positions import token_grid
from .router import Route
from .source import Routing
from .weaving import append_mask, append_positions, append_sources, double_step, named_blocks, single_step


class FeatureStream:
    """An `attn1_patch` for one forward on latents x; it comes behind the one that appends the source.

    `read` (batch,) says whose picture reads the tokens; None: everyone's.
    """

    def __init__(
        self,
        host: Host,
        bank: Bank,
        routing: Routing,
        routes: Mapping[str, Route],
        h: Tensor,
        x: Tensor,
        times: Tensor,
        pooled: Tensor,
        guidance: Tensor | None,
        read: Tensor | None = None,
    ):
        self.host, self.bank, self.routes = host, bank, routes
        self.names, self.strengths = columns_of(bank, routing)[1].experts, strengths(bank, routing)
        self.h, self.read = h.to(host.dtype), read
        self.vec = source_vec(host, times, pooled, guidance)
        pool = pooling(*token_grid(x, host.flux.patch_size)).to(h.device)
        places = pool @ host.tokens(x[:1])[1][0].to(pool)
        self.pe = rotary(places[None], host.flux.params.axes_dim, host.flux.params.theta).to(self.h.device)
        self.blocks = dict(named_blocks(host.flux))
        self.entering: dict[str, Tensor] = {}

    @torch.compiler.disable()
    def __call__(self, q, k, v, pe=None, attn_mask=None, extra_options: dict[str, Any] | None = None) -> dict:
        block, keys = f"{extra_options['block_type']}_blocks.{extra_options['block_index']}", k.shape[2]

        def attend(own_q: Tensor, own_k: Tensor, own_v: Tensor) -> Tensor:
            own = self.pe.expand(len(pe), -1, -1, -1, -1, -1)
            every = append_positions(own, own.shape[2], [pe[:, :, :keys]])  # own first: queries have their places
            return self.host.attend(every)(own_q, torch.cat((own_k, k), dim=2), torch.cat((own_v, v), dim=2))

        # a checkpointed block runs twice: both times on what came in
        h = self.entering.setdefault(block, self.h)
        step = double_step if block.startswith("double") else single_step
        self.h, kv = step(block, self.blocks[block], h, self.vec, attend, self._pick)
        longer = append_positions(pe, keys, [self.pe])
        mask = append_mask(attn_mask, self._unread(q), q, keys, self.h.shape[1])
        k, v = append_sources(k, v, longer, [(kv.k, kv.v)])
        return {"k": k, "v": v, "pe": longer, "attn_mask": mask}

    def _pick(self, block: str, h: Tensor) -> Weave:
        return chosen(self.bank, self.names, block, self.routes[block], self.strengths[block])

    def _unread(self, like: Tensor) -> Tensor | None:
        """(batch, 1, 1, tokens), -inf where they are not read."""
        if self.read is None:
            return None
        bias = like.new_zeros(len(like), 1, 1, self.h.shape[1])
        return bias.masked_fill_(~self.read.to(like.device)[:, None, None, None], -torch.inf)


@contextmanager
def last_tokens(flux: nn.Module) -> Iterator[list[Tensor]]:
    """Within, hears the picture's tokens (batch, tokens, dim) behind the last block of every forward."""
    heard: list[Tensor] = []
    hook = flux.final_layer.register_forward_pre_hook(lambda _, args: heard.append(args[0]))
    try:
        yield heard
    finally:
        hook.remove()
    if not heard:
        raise RuntimeError(
            "FLUX's last layer ran unheard, expected to learn from it what the picture shows: leave out torch.compile."
        )
