"""Experts: low-rank corrections of the source's projections, and their gated sum (paper, eq. 4).

An expert is a table target -> LowRank for each block. The paper's experts have the targets k and v;
imported ones may also have q and out.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .router import Route

TARGETS = ("q", "k", "v", "out")


class LowRank(NamedTuple):
    """x -> scale * up(down(x)); down is (rank, dim), up is (dim, rank), scale is alpha / rank."""

    down: Tensor
    up: Tensor
    scale: float

    def __call__(self, x: Tensor, gate: Tensor) -> Tensor:
        """gate * E(x) for x (..., dim) and gate (..., 1); gated where the tensor is narrow."""
        return F.linear(F.linear(x, self.down.to(x)) * (gate * self.scale).to(x), self.up.to(x))


Expert = Mapping[str, LowRank]


class Weave(NamedTuple):
    """A block's route with the experts it chose: the second term of eq. 4."""

    route: Route
    experts: Mapping[int, Expert]
    """By column, only those that a sample (or token) takes: the others are never read."""

    def residual(self, x: Tensor, target: str) -> Tensor | None:
        """The sum over experts of gate * E(x), x (batch, tokens, dim); None if none has the target."""
        experts = {column: expert[target] for column, expert in self.experts.items() if target in expert}
        gate = self.route.gate.view(len(x), -1, 1)
        if not experts:
            return None
        if len(self.experts) == 1:
            return next(iter(experts.values()))(x, gate)
        total, gate = torch.zeros_like(x), gate.expand(-1, x.shape[1], -1)
        for column, expert in experts.items():
            rows = self.route.expert == column
            total[rows] = expert(x[rows], gate[rows])
        return total
