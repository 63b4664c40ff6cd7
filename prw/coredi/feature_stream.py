"""A third stream beside text and picture: tokens of features, which see everything and which the picture reads.

In every block they go through FLUX's image-side weights, as the source does, and the source's routed expert bends their
keys and values, too. They see text, picture, source and themselves; the source does not see them, nor any noise.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attachment import Host, source_vec
from ..bank.bank import Bank
from ..experts import Weave
from ..flux.math import rotary
from ..positions import token_grid
from ..router import Route
from ..select_experts import chosen, columns_of, strengths
from ..source import Routing
from ..weaving import (
    additive,
    append_mask,
    append_positions,
    append_sources,
    calm,
    double_step,
    named_blocks,
    single_step,
)
from .features import pooling


class FeatureStream:
    """An `attn1_patch` for one forward on latents x; it comes behind the one that appends the source.

    `read` (batch,) says whose picture reads the tokens; None: everyone's. Where a source acts weakly or not at all, so do
    its features: `bias` of text tokens and queries is source.read_bias for it.
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
        bias: Callable[[int, int], Tensor | None] = lambda text, queries: None,
    ):
        self.host, self.bank, self.routes = host, bank, routes
        self.names, self.strengths = columns_of(bank, routing)[1].experts, strengths(bank, routing)
        self.h, self.read, self.bias = h.to(host.dtype), read, bias
        self.left: Tensor | None = None
        """The tokens behind the last block, once it ran."""
        self.vec = source_vec(host, times, pooled, guidance)
        self.pool = pooling(*token_grid(x, host.flux.patch_size)).to(h.device)
        places = self.pool @ host.tokens(x[:1])[1][0].to(self.pool)
        self.pe = rotary(places[None], host.flux.params.axes_dim, host.flux.params.theta).to(self.h.device)
        self.blocks = dict(named_blocks(host.flux))
        *_, self.last = self.blocks
        self.entering: dict[str, Tensor] = {}
        # once for all blocks, where these share positions and mask
        self._places: tuple = (None, None, None)
        self._cells: tuple = (None, None)

    @torch.compiler.disable()
    def __call__(self, q, k, v, pe=None, attn_mask=None, extra_options: dict[str, Any] | None = None) -> dict:
        block, keys = f"{extra_options['block_type']}_blocks.{extra_options['block_index']}", k.shape[2]
        text = extra_options["img_slice"][0]
        before, behind = self._positions(pe, keys)
        allowed = self._allowed(attn_mask, q, text)

        def attend(own_q: Tensor, own_k: Tensor, own_v: Tensor) -> Tensor:
            every = torch.cat((own_k, k), dim=2), torch.cat((own_v, v), dim=2)
            return self.host.attend(before)(own_q, *every, mask=allowed)

        # a checkpointed block runs twice: both times on what came in
        h = self.entering.setdefault(block, self.h)
        step = double_step if block.startswith("double") else single_step
        h, kv = step(block, self.blocks[block], h, self.vec, attend, self._pick)
        self.h = calm(h)
        if self.left is None and block == self.last:
            self.left = self.h
        mask = append_mask(attn_mask, self._reading(q, text), q, keys, self.h.shape[1])
        k, v = append_sources(k, v, behind, [(kv.k, kv.v)])
        return {"k": k, "v": v, "pe": behind, "attn_mask": mask}

    def _pick(self, block: str, h: Tensor) -> Weave:
        return chosen(self.bank, self.names, block, self.routes[block], self.strengths[block])

    def _positions(self, pe: Tensor, keys: int) -> tuple[Tensor, Tensor]:
        """With the tokens' own before those that are there, whose queries then have their places, and behind them."""
        if self._places[0] is not pe:
            own = self.pe.expand(len(pe), -1, -1, -1, -1, -1)
            before = append_positions(own, own.shape[2], [pe[:, :, :keys]])
            self._places = pe, before, append_positions(pe, keys, [self.pe])
        return self._places[1:]

    def _allowed(self, mask: Tensor | None, q: Tensor, text: int) -> Tensor | None:
        """What a cell may read: what the picture's tokens in it may, on the average; all of the features."""
        if self._cells[0] is not mask:
            every = additive(mask, q.dtype).float()
            rows = every.expand(*every.shape[:-2], q.shape[2], -1)[..., text : text + self.pool.shape[1], :]
            cells = (self.pool @ rows.exp()).log()
            self._cells = mask, F.pad(cells, (len(self.pool), 0)).to(q.dtype)
        return self._cells[1]

    def _reading(self, q: Tensor, text: int) -> Tensor | None:
        """Who reads the tokens, and how strongly: (queries, tokens) or (batch, 1, queries or 1, tokens)."""
        weak, tokens = self.bias(text, q.shape[2]), self.h.shape[1]
        bias = None if weak is None else weak.to(q).expand(-1, tokens)
        if self.read is None:
            return bias
        unread = q.new_zeros(len(q), 1, 1, tokens)
        unread.masked_fill_(~self.read.to(q.device)[:, None, None, None], -torch.inf)
        return unread if bias is None else unread + bias


@contextmanager
def last_tokens(flux: nn.Module) -> Iterator[list[Tensor]]:
    """Within, hears the picture's tokens (batch, tokens, dim) behind the last block of every forward."""
    heard: list[Tensor] = []
    hook = flux.final_layer.register_forward_pre_hook(lambda _, args: heard.append(args[0]))
    try:
        yield heard
    finally:
        hook.remove()
