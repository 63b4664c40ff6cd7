"""From a bank and a source's routing to the experts of each block."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .bank.bank import Bank
from .config import RouterInfo
from .experts import Weave
from .files.errors import BankError
from .files.validate import short
from .router import Route, Steering, route
from .source import Routing
from .source_format import SourceFormat
from .weaving import Pick

BlockNoise = Callable[[str, Tensor], Tensor]
"""The router's noise in a block, shaped like the logits it is given."""
LEANS = {"concept": -1.0, "localisation": 1.0}


def picker(bank: Bank, routing: Routing, noise: BlockNoise | None = None) -> Pick:
    """Answers for every block which experts bend it; `noise` in training only."""
    stage, columns = columns_of(bank, routing)
    steering = Steering(
        lean=_lean(bank, columns, routing.lean),
        forced=columns.experts.index(routing.expert) if routing.expert else None,
    )
    return partial(_pick, bank, stage, columns, steering, strengths(bank, routing), noise)


def strengths(bank: Bank, routing: Routing) -> dict[str, float]:
    """The experts' strength in each block."""
    blocks = bank.info.base.blocks()
    if not routing.curve:
        return dict.fromkeys(blocks, routing.strength)
    places = np.linspace(0, len(routing.curve) - 1, len(blocks))
    factors = np.interp(places, range(len(routing.curve)), routing.curve)
    return {block: routing.strength * float(factor) for block, factor in zip(blocks, factors)}


def _pick(bank, stage, columns, steering, strengths, noise, block: str, h: Tensor) -> Weave:
    if stage is None:
        weight, spread = h.new_zeros(h.shape[-1], 1), None
    else:
        weight, spread = (w.to(h.device) for w in bank.router(stage, block))
    if noise is None:
        answer = route(h, weight, None, columns.per, steering)
    else:
        answer = route(h, weight, spread, columns.per, steering, partial(noise, block))
    return chosen(bank, columns.experts, block, answer, strengths[block])


def chosen(bank: Bank, names: Sequence[str], block: str, answer: Route, strength: float) -> Weave:
    """A block's route with its experts; `names` by column."""
    if strength == 0:
        return Weave(answer, {})
    columns = [0] if len(names) == 1 else answer.expert.unique().tolist()
    return Weave(answer, {column: bank.expert(names[column], block) for column in columns}, strength)


def columns_of(bank: Bank, routing: Routing) -> tuple[str | None, RouterInfo]:
    if not routing.expert:
        return bank.columns(routing.task, routing.router)
    if routing.expert not in bank.info.experts:
        raise BankError(
            f"The bank has no expert {short(routing.expert)}, expected one of {', '.join(bank.info.experts)}: "
            f"choose one of them or let the router choose."
        )
    try:
        stage, columns = bank.columns(routing.task, routing.router)
    except BankError:
        if routing.router:
            raise
        stage, columns = None, None
    if columns is None or routing.expert not in columns.experts:
        # an expert that the task's router does not know still runs, alone
        return None, RouterInfo(experts=(routing.expert,), task=routing.task)
    return stage, columns


def habits_of(bank: Bank, routing: Routing) -> SourceFormat:
    """The habits of an expert that works alone: forced by the user, or without a router."""
    stage, columns = columns_of(bank, routing)
    alone = routing.expert or (columns.experts[0] if stage is None else "")
    return bank.info.experts[alone].habits if alone else SourceFormat()


def _lean(bank: Bank, columns: RouterInfo, amount: float) -> Tensor | None:
    if amount == 0:
        return None
    return torch.tensor([amount * LEANS.get(bank.info.experts[name].role, 0.0) for name in columns.experts])
