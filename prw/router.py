"""The noisy top-1 router (paper, eq. 2 and 3): which expert changes a block's keys and values, and how much."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Noise = Callable[[Tensor], Tensor]
"""Standard normal numbers shaped like the logits it is given."""
ROUTE_PER = ("sample", "token")
ABLATIONS = ("newest", "none")
"""Who gets what an older expert would take, to see whether that expert matters: the newest expert, or no expert at all."""


class Route(NamedTuple):
    """A router's decision in one block; the leading shape is (batch,) or, routed per token, (batch, tokens)."""

    expert: Tensor
    """The chosen column, the paper's e_i."""
    gate: Tensor
    """How much of the expert is added: its softmax value (eq. 4)."""
    probs: Tensor
    """softmax(w) over all columns, for the veteran loss and for plots; its gradient stays in the router."""


class Steering(NamedTuple):
    """What a user asks of the router; the default asks nothing."""

    lean: Tensor | None = None
    """One number a column in -1..1: at 1 the column beats all that do not lean, at -1 it loses to them."""
    forced: int | None = None
    """A column to take whatever the router thinks, with gate 1."""
    older: str = ""
    """A row of ABLATIONS: who gets what a column before the last would take; empty: that column."""


def route(
    h: Tensor,
    weight: Tensor,
    noise_weight: Tensor | None = None,
    per: str = "sample",
    steering: Steering | None = None,
    noise: Noise = torch.randn_like,
) -> Route:
    """Routes modulated source tokens h (batch, tokens, dim); weights are (dim, experts).

    `noise_weight` is given in training only: at inference the router is deterministic.
    Our choice: one route per sample, from the mean token, pooled before the noise is added,
    because noise per token would average away.
    """
    h = h.float()
    pooled = h.mean(dim=1) if per == "sample" else h
    w = pooled @ weight.float()  # eq. 2, without noise: (batch, experts)
    logits_noise = None
    if noise_weight is not None:
        logits_noise = noise(w)
        w = add_noise(w, logits_noise, pooled, noise_weight)

    steering = steering or Steering()
    if steering.forced is not None:
        return _force(w, steering.forced)
    if steering.lean is not None:
        # Our choice: in units of the logits' own spread, so the knob means the same for every router.
        spread = w.amax(-1, keepdim=True) - w.amin(-1, keepdim=True) + 1
        w = w + spread * steering.lean.to(w)

    probs = w.softmax(dim=-1)
    gate, expert = probs.max(dim=-1)  # eq. 3
    if steering.older:
        expert, gate = replace_older(expert, gate, steering.older, w.shape[-1] - 1)
    if logits_noise is not None and noise_weight is not None:
        # Our choice: the veteran loss, which reads these, moves the router alone. Through the tokens it would
        # reach the experts, where its steady push drowns what they learn of the task.
        pooled = pooled.detach()
        probs = add_noise(pooled @ weight.float(), logits_noise, pooled, noise_weight).softmax(dim=-1)
    return Route(expert, gate, probs)


def add_noise(w: Tensor, noise: Tensor, pooled: Tensor, noise_weight: Tensor) -> Tensor:
    """Adds eq. 2's second term: noise of a size that the router has learned."""
    return w + noise * F.softplus(pooled @ noise_weight.float())


def replace_older(expert: Tensor, gate: Tensor, by: str, newest: int) -> tuple[Tensor, Tensor]:
    """Takes from older experts what they chose.

    Our choice: the newest expert gets it at the strength that the older one had, so that only what an expert knows differs.
    """
    if by == "none":
        return expert, gate.masked_fill(expert != newest, 0.0)
    return torch.full_like(expert, newest), gate


def _force(w: Tensor, column: int) -> Route:
    expert = torch.full(w.shape[:-1], column, device=w.device)
    return Route(expert, torch.ones_like(expert, dtype=w.dtype), F.one_hot(expert, w.shape[-1]).to(w))
