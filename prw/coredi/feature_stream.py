"""Features as a third stream beside text and picture: they attend to everything, and the picture reads them.

In every block their tokens go through FLUX's image-side weights, as the source does, with the residuals of the source's
routed expert on their keys and values. They see text, picture, source and themselves; the source does not see them, nor
any noise.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..experts import BlockExperts
from ..files.validate import shorten
from ..find_experts import find_router
from ..flux.families import find_model_family
from ..flux.inputs import FluxInputs, SourceConditions
from ..flux.math import rotary
from ..positions import token_grid
from ..router import Route
from ..select_experts import ExpertBank, compute_block_strengths, select_block_experts
from ..source import Routing
from ..source_pass import Host
from ..weaving import (
    append_mask,
    append_positions,
    append_sources,
    clamp_fp16,
    make_additive,
    named_blocks,
    run_double_block,
    run_single_block,
)
from .features import make_pooling_matrix


class SourceExperts(NamedTuple):
    """The experts that the features' source took."""

    bank: ExpertBank
    routing: Routing
    routes: Mapping[str, Route]
    """The route of each block."""


class FeatureStream:
    """An `attn1_patch` for one forward of FLUX; it comes behind the patch that appends the source."""

    def __init__(
        self,
        host: Host,
        source: SourceExperts,
        h: Tensor,
        inputs: FluxInputs,
        readers: Tensor | None = None,
        bias: Callable[[int, int], Tensor | None] = lambda text, queries: None,
    ):
        """`h` are the features' tokens (batch, tokens, dim); of the inputs the text is not looked at.

        `readers` (batch,) says whose picture reads the tokens; None: everyone's. Where a source acts weakly or not at
        all, so do its features: `bias` of text tokens and queries is source.read_bias for it.
        """
        self.host, self.bank, self.routes = host, source.bank, source.routes
        router = find_router(source.bank.info, source.routing)[1]
        if router.per != "sample":
            raise ValueError(
                f"The router of {shorten(source.routing.task)} chooses an expert for each {router.per}, expected one for a "
                f"whole source, which its features share: take away the features, or choose another router."
            )
        self.names = router.experts
        self.strengths = compute_block_strengths(source.bank.info, source.routing)
        self.h, self.readers, self.bias = h.to(host.dtype), readers, bias
        self.last_tokens: Tensor | None = None
        """The features' tokens behind the last block, once it ran."""
        conditions = SourceConditions(inputs.times, inputs.pooled, inputs.guidance)
        self.modulation = find_model_family(host.flux).modulate_source(host.flux, conditions, host.dtype)
        self.pool = make_pooling_matrix(*token_grid(inputs.x, host.flux.patch_size)).to(h.device)
        ids = self.pool @ host.tokenize(inputs.x[:1])[1][0].to(self.pool)
        self.pe = rotary(ids[None], host.flux.params.axes_dim, host.flux.params.theta).to(self.h.device)
        self.blocks = dict(named_blocks(host.flux))
        *_, self.last_block = self.blocks
        self.block_inputs: dict[str, Tensor] = {}
        # once for all blocks, where these share positions and mask
        self._positions_of: tuple[Tensor, tuple[Tensor, Tensor]] | None = None
        self._mask_of: tuple[Tensor, Tensor] | None = None

    @torch.compiler.disable()
    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, pe: Tensor, attn_mask: Tensor | None, extra_options: dict[str, Any]
    ) -> dict:
        block, keys = f"{extra_options['block_type']}_blocks.{extra_options['block_index']}", k.shape[2]
        text = extra_options["img_slice"][0]
        before, behind = self._make_positions(pe, keys)
        allowed = self._make_mask(attn_mask, q, text)

        def attend(own_q: Tensor, own_k: Tensor, own_v: Tensor) -> Tensor:
            all_k, all_v = torch.cat((own_k, k), dim=2), torch.cat((own_v, v), dim=2)
            return self.host.make_attention(before)(own_q, all_k, all_v, mask=allowed)

        # a checkpointed block runs twice: both times on what came in
        h = self.block_inputs.setdefault(block, self.h)
        step = run_double_block if block.startswith("double") else run_single_block
        h, kv = step(block, self.blocks[block], h, self.modulation, attend, self._pick)
        self.h = clamp_fp16(h)
        if self.last_tokens is None and block == self.last_block:
            self.last_tokens = self.h
        mask = append_mask(attn_mask, self._make_bias(q, text), q, keys, self.h.shape[1])
        k, v = append_sources(k, v, behind, [(kv.k, kv.v)])
        return {"k": k, "v": v, "pe": behind, "attn_mask": mask}

    def _pick(self, block: str, h: Tensor) -> BlockExperts:
        return select_block_experts(self.bank, self.names, block, self.routes[block], self.strengths[block])

    def _make_positions(self, pe: Tensor, keys: int) -> tuple[Tensor, Tensor]:
        """Makes the block's positions with the tokens' own before them, as their queries need it, and behind them."""
        if self._positions_of is None or self._positions_of[0] is not pe:
            own_pe = self.pe.expand(len(pe), -1, -1, -1, -1, -1)
            before = append_positions(own_pe, own_pe.shape[2], [pe[:, :, :keys]])
            self._positions_of = pe, (before, append_positions(pe, keys, [self.pe]))
        return self._positions_of[1]

    def _make_mask(self, mask: Tensor | None, q: Tensor, text: int) -> Tensor | None:
        """Makes the mask of what a cell may read: on average what the picture's tokens in it may,
        and all of the features."""
        if mask is None:
            return None
        if self._mask_of is None or self._mask_of[0] is not mask:
            bias = make_additive(mask, q.dtype).float()
            rows = bias.expand(*bias.shape[:-2], q.shape[2], -1)[..., text : text + self.pool.shape[1], :]
            cells = (self.pool @ rows.exp()).log()
            self._mask_of = mask, F.pad(cells, (len(self.pool), 0)).to(q.dtype)
        return self._mask_of[1]

    def _make_bias(self, q: Tensor, text: int) -> Tensor | None:
        """Makes the bias that says who reads the tokens, and how strongly: (queries, tokens) or (batch, 1,
        queries or 1, tokens)."""
        strength, tokens = self.bias(text, q.shape[2]), self.h.shape[1]
        bias = None if strength is None else strength.to(q).expand(-1, tokens)
        if self.readers is None:
            return bias
        unread = q.new_zeros(len(q), 1, 1, tokens)
        unread.masked_fill_(~self.readers.to(q.device)[:, None, None, None], -torch.inf)
        return unread if bias is None else unread + bias


@contextmanager
def record_last_tokens(flux: nn.Module) -> Generator[list[Tensor]]:
    """Records, within, the picture's tokens (batch, tokens, dim) behind the last block of every forward."""
    recorded: list[Tensor] = []
    hook = flux.get_submodule("final_layer").register_forward_pre_hook(lambda _, args: recorded.append(args[0]))
    try:
        yield recorded
    finally:
        hook.remove()
