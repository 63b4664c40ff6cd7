"""Chooses a bank's experts for each block of a source's pass (paper, eq. 2 and 3), as the source's Routing asks for it.

find_experts.py says which router serves a source; make_selector runs it in every block (router.py: route)."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .config import BankInfo, RouterInfo
from .experts import BlockExperts, Expert
from .find_experts import find_router
from .flux.blocks import FluxModel
from .router import Route, Steering, route
from .source import MODES, Routing
from .weaving import Selector

BlockNoise = Callable[[str, Tensor], Tensor]
"""The router's noise in a block, shaped like the logits it is given."""


class ExpertBank(Protocol):
    """What the method asks of a bank."""

    info: BankInfo

    def expert(self, name: str, block: str) -> Expert:
        """Reads an expert's low-rank matrices in one block, by projection."""
        ...

    def router(self, stage: str, block: str) -> tuple[Tensor, Tensor]:
        """Reads W_r and W_n of eq. 2, each (dim, experts)."""
        ...

    def model(self, name: str, base: FluxModel) -> FluxModel:
        """Builds an expert that is a whole model, perhaps on the base's layers; its weights stay in their file until used."""
        ...

    def state(self) -> Hashable:
        """Returns a value that changes whenever the weights do."""
        ...


def make_selector(bank: ExpertBank, routing: Routing, noise: BlockNoise | None = None) -> Selector:
    """Makes the function (block, tokens) -> route and experts that a source pass calls in each block.

    `noise` is the router's (eq. 2), in training only.
    """
    stage, router = find_router(bank.info, routing)
    steering = Steering(
        lean=_make_lean(bank.info, router, routing.lean),
        forced=router.experts.index(routing.expert) if routing.expert else None,
    )
    ablating = steering._replace(older=routing.older)
    strengths = compute_block_strengths(bank.info, routing)

    def select(block: str, h: Tensor) -> BlockExperts:
        if stage is None:
            weight, noise_weight = h.new_zeros(h.shape[-1], 1), None
        else:
            weight, noise_weight = (w.to(h.device) for w in bank.router(stage, block))
        asked = ablating if not routing.older_in or block in routing.older_in else steering
        if noise is None:
            decision = route(h, weight, None, router.per, asked)
        else:
            decision = route(h, weight, noise_weight, router.per, asked, partial(noise, block))
        return select_block_experts(bank, router.experts, block, decision, strengths[block])

    return select


def select_block_experts(
    bank: ExpertBank, names: Sequence[str], block: str, decision: Route, strength: float
) -> BlockExperts:
    """Collects the experts that a block's route takes; `names` are theirs by column."""
    if strength == 0:
        return BlockExperts(decision, {})
    columns = [0] if len(names) == 1 else decision.expert.unique().tolist()
    return BlockExperts(decision, {column: bank.expert(names[column], block) for column in columns}, strength)


def compute_block_strengths(info: BankInfo, routing: Routing) -> dict[str, float]:
    """Computes the experts' strength in each block: the routing's, times its curve over the blocks."""
    blocks = info.base.blocks()
    if not routing.curve:
        return dict.fromkeys(blocks, routing.strength)
    places = np.linspace(0, len(routing.curve) - 1, len(blocks))
    factors = np.interp(places, range(len(routing.curve)), routing.curve)
    return {block: routing.strength * float(factor) for block, factor in zip(blocks, factors)}


def _make_lean(info: BankInfo, router: RouterInfo, amount: float) -> Tensor | None:
    """Makes what a lean of -1 (concept) to 1 (localisation) adds to each expert's logit, by column; None if nothing."""
    roles = [info.experts[name].role if name in info.experts else "" for name in router.experts]  # the base has none
    if amount == 0 or not any(roles):
        return None
    return torch.tensor([amount * MODES.get(role, 0.0) for role in roles])
