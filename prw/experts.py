"""Experts: low-rank corrections of the source's projections, and their gated sum (paper, eq. 4).

An expert has for each block a LowRank of every projection that it changes (a bank's file calls these its targets). The
paper's experts change k and v. Imported ones may also have q, out (which reads attention's output, as the projection behind it does) and proj (which
reads what that projection made of it).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .router import Route

TARGETS = ("q", "k", "v", "out", "proj")


class LowRank(NamedTuple):
    """x -> up(scale * down(x)); down is (rank, dim), up is (dim, rank), scale is alpha / rank: a number, or one a rank."""

    down: Tensor
    up: Tensor
    scale: float | Tensor

    def __call__(self, x: Tensor) -> Tensor:
        scale = self.scale.to(x) if isinstance(self.scale, Tensor) else self.scale
        return F.linear(F.linear(x, self.down.to(x)) * scale, self.up.to(x))


def stack_ranks(pairs: Sequence[LowRank]) -> LowRank:
    """Gives one pair of matrices that adds what several add, the sum of scale * up(down(x)): their ranks,
    one behind the other."""
    device = pairs[0].down.device

    def join(matrices: Iterable[Tensor], dim: int) -> Tensor:
        wide = (x.bfloat16() if x.dtype.itemsize == 1 else x for x in matrices)  # fp8 cannot be joined
        return torch.cat([x.to(device) for x in wide], dim)

    down, up = join((pair.down for pair in pairs), 0), join((pair.up for pair in pairs), 1)
    scale = pairs[0].scale
    if any(isinstance(pair.scale, Tensor) or pair.scale != scale for pair in pairs):
        scale = torch.cat([torch.as_tensor(pair.scale, device=device).float().expand(len(pair.down)) for pair in pairs])
    return LowRank(down, up, scale)


Expert = Mapping[str, LowRank]
"""One block's LowRanks, by projection: a key of TARGETS."""


class BlockExperts(NamedTuple):
    """A block's route with the experts it chose: the second term of eq. 4."""

    route: Route
    experts: Mapping[int, Expert]
    """By column, only those that a sample (or token) takes: the others are never read."""

    strength: float = 1.0
    """The user's knob on all of it."""

    def residual(self, x: Tensor, projection: str) -> Tensor | None:
        """Computes strength * sum over experts of gate * E(x), x (batch, tokens, dim);
        None if no expert changes the projection."""
        experts = {column: expert[projection] for column, expert in self.experts.items() if projection in expert}
        if not experts:
            return None
        gate = (self.route.gate * self.strength).to(x).view(len(x), -1, 1)
        if len(self.experts) == 1:
            return gate * next(iter(experts.values()))(x)
        total, gate = torch.zeros_like(x), gate.expand(-1, x.shape[1], -1)
        for column, expert in experts.items():
            rows = self.route.expert == column
            total[rows] = gate[rows] * expert(x[rows])
        return total
