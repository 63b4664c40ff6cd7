"""Shared steps for personalisation: how much of each prediction is the concept's, and how much its superclass's.

The concept's prediction is the prompt's with its source; the superclass's is that without ("a dog"). All methods of the
PersonGenSampler paper are one formula, s + weight (c - s), with a weight that depends on step and place: no
unconditional prediction is needed, so it works at cfg 1.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..files.validate import check_range
from .attention_probe import AttentionProbe, BlockAttention
from .marked_prompt import MarkedTokens


@dataclass(frozen=True)
class SharedStepSettings:
    """When and where the concept takes part."""

    switch: float = 0.14
    """The part of the sampling before which the superclass is alone."""
    weight: float = 1.0
    """The concept's, from then on; above 1 it leads away from the superclass: guidance towards the source."""
    area: float = 1.0
    """The share of the picture that the concept has: where the superclass reads its noun most. 1: everywhere."""

    def __post_init__(self):
        check_range("switch", self.switch, 0, 1)
        check_range("weight", self.weight, -100, 100)
        check_range("area", self.area, 0, 1)

    @property
    def is_masked(self) -> bool:
        return self.area < 1


WAYS = {
    "switching": SharedStepSettings(0.14, 1.0, 1.0),
    "mixed": SharedStepSettings(0.0, 0.5, 1.0),
    "multi-stage": SharedStepSettings(0.2, 0.57, 1.0),
    "masked": SharedStepSettings(0.06, 0.5, 0.3),
    "source guidance": SharedStepSettings(0.0, 1.5, 1.0),
}
"""By name: the authors' values, but source guidance, which is our choice: half again past the concept, away from the superclass."""


@dataclass
class NounProbe(AttentionProbe):
    """Measures how much the picture reads the noun, as the mean of blocks and heads."""

    maps: list[Tensor] = field(default_factory=list)

    def observe(self, attention: BlockAttention, tokens: MarkedTokens) -> None:
        self.maps.append(attention.read_prompt(tokens)[..., list(tokens.noun)].sum(-1).mean(1))

    def average(self) -> Tensor:
        """Gives the average (batch, rows)"""
        if not self.maps:
            raise RuntimeError(
                "The superclass was not drawn in this step, so nobody knows where its noun is: bypass EasyCache and "
                "time windows of prompts, or set area to 1."
            )
        return torch.stack(self.maps).mean(0)


def select_strongest(noun_map: Tensor, area: float) -> Tensor:
    """Gives 1 at the share of places (batch, rows) that read the noun most, 0 elsewhere."""
    return (noun_map > torch.quantile(noun_map, 1 - area, dim=1, keepdim=True)).float()


def expand_to_latent(values: Tensor, height: int, width: int, patch: int) -> Tensor:
    """Expands a value per token (batch, rows) as one per latent pixel (batch, 1, height, width)."""
    grid = values.unflatten(1, (-1, -(-width // patch)))
    grid = grid.repeat_interleave(patch, 1).repeat_interleave(patch, 2)
    return grid[:, None, :height, :width]


def mix_predictions(concept: Tensor, superclass: Tensor, weight: float | Tensor) -> Tensor:
    """Computes s + weight (c - s)"""
    return superclass + weight * (concept - superclass)
