"""A third stream beside text and picture: tokens of features, which see everything and which the picture reads.

In every block they go through FLUX's image-side weights, as the source does, and the source's routed expert bends their
keys and values, too. They see text, picture, source and themselves; the source does not see them, nor any noise.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...prw.attachment import Host
from ...prw.bank import Bank
from ...prw.experts import Weave
from ...prw.flux_math import rotary
from ...prw.router import Route
from ...prw.weaving import append_positions, append_sources, double_step, named_blocks, single_step


class FeatureStream:
    """An `attn1_patch` for one forward; it comes behind the one that appends the source.

    `read` (batch,) says whose picture reads the tokens; None: everyone's.
    """

    def __init__(
        self,
        host: Host,
        bank: Bank,
        names: tuple[str, ...],
        routes: Mapping[str, Route],
        h: Tensor,
        vec: Tensor,
        places: Tensor,
        read: Tensor | None = None,
    ):
        self.host, self.bank, self.names, self.routes = host, bank, names, routes
        self.h, self.vec, self.read = h, vec, read
        self.pe = rotary(places[None], host.flux.params.axes_dim, host.flux.params.theta).to(h.device)
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
        k, v = append_sources(k, v, longer, [(kv.k, kv.v)])
        return {"k": k, "v": v, "pe": longer, "attn_mask": attn_mask if self.read is None else self._mask(k, keys)}

    def _pick(self, block: str, h: Tensor) -> Weave:
        route = self.routes[block]
        columns = route.expert.unique().tolist()
        return Weave(route, {column: self.bank.expert(self.names[column], block) for column in columns})

    def _mask(self, k: Tensor, keys: int) -> Tensor:
        """(batch, 1, 1, keys); training has no other."""
        mask = k.new_zeros(len(k), 1, 1, k.shape[2])
        mask[~self.read.to(k.device), ..., keys:] = -torch.inf
        return mask


@contextmanager
def last_tokens(flux: nn.Module) -> Iterator[list[Tensor]]:
    """Within, hears the picture's tokens (batch, tokens, dim) behind the last block of every forward."""
    heard: list[Tensor] = []
    hook = flux.final_layer.register_forward_pre_hook(lambda _, args: heard.append(args[0]))
    try:
        yield heard
    finally:
        hook.remove()
