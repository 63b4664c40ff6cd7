"""Divide, conquer, integrate: two branches drawn side by side (Jin et al., ECCV 2024, arXiv 2412.04831).

The concept branch has the prompt as it is; the auxiliary branch has a noun that FLUX knows well in the concept's place,
and noise of its own. In every block of the first steps each row of the concept's picture keeps what its own text gives
it where it draws the concept, and takes what the auxiliary's text gives elsewhere.

Our choice for FLUX, which has no cross-attention: of the joint attention only the part that the text's keys bear is
blended (and, if asked for, the sources').
"""

from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor

from ..files.validate import check_range
from .attention_probe import AttentionProbe, BlockAttention
from .marked_prompt import MarkedTokens

WORD_SCALE, PLACE_SCALE, MAP_GAIN = 10.0, 10.0, 500.0
"""Of the authors' code: scales of the softmax over words and over places, and of the map. At 4096 places, a picture of
1024 pixels, a map's mean is then 1/8; the fewer places, the larger, and the further from 0 the strength that balances
both branches."""


@dataclass(frozen=True)
class BlendSettings:
    """How two branches are blended."""

    strength: float = 0.0
    """Of the auxiliary branch (their lambda): -inf keeps the concept's text, +inf takes the auxiliary's; usual -2 to 2."""
    end: float = 0.3
    """The part of the sampling after which the concept branch goes on alone."""
    first: int = 0
    last: int = 37
    """Blocks that blend, double blocks first: all but the last third of FLUX.1's 57 (our choice)."""
    sources: bool = False
    """Whether what the sources' keys bear is blended, too: the concept's source then acts where the concept is."""

    def __post_init__(self):
        check_range("strength", self.strength, -1e6, 1e6)
        check_range("end", self.end, 0, 1)
        if not 0 <= self.first <= self.last:
            raise ValueError(f"The blocks are {self.first} to {self.last}, expected a first one and a later last one.")


def compute_noun_map(reading: Tensor, tokens: MarkedTokens) -> Tensor:
    """Computes each row's sharpened attention (batch, heads, rows) to the noun,
    as a share of its attention to all words."""
    return (WORD_SCALE * reading).softmax(-1)[..., list(tokens.noun)].sum(-1)


def contrast_places(noun_map: Tensor) -> Tensor:
    """Gives a map whose places compete with one another: a softmax over them."""
    return MAP_GAIN * (PLACE_SCALE * noun_map).softmax(-1)


def compute_shares(concept: Tensor, auxiliary: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Computes how much of each branch's text a row takes; the two add up to 1."""
    concept_share, auxiliary_share = torch.stack((concept, strength * auxiliary)).softmax(0)
    return concept_share, auxiliary_share


@dataclass
class AuxiliaryProbe(AttentionProbe):
    """Observes the auxiliary branch, which runs first and unchanged, and records what the concept branch needs of it."""

    recorded: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Block -> what its text bears, and the map of everything that is not its noun."""

    def observe(self, attention: BlockAttention, tokens: MarkedTokens) -> None:
        elsewhere = contrast_places(1 - compute_noun_map(attention.read_prompt(tokens), tokens))
        # a slice keeps the text's rows
        self.recorded[attention.block] = attention.attend_to([slice(attention.text_length)]).clone(), elsewhere


@dataclass
class ConceptProbe(AttentionProbe):
    """Blends the concept branch, which runs second, with what the auxiliary branch recorded."""

    auxiliary: AuxiliaryProbe
    blend: BlendSettings
    maps: list[Tensor] = field(default_factory=list)
    """For each block the concept's share (batch, rows), mean of its heads."""

    def observe(self, attention: BlockAttention, tokens: MarkedTokens) -> Tensor:
        if attention.block not in self.auxiliary.recorded:
            raise RuntimeError(
                "The auxiliary branch was not drawn in this step, so there is nothing to blend with: let EasyCache start "
                "after `end`, and give the auxiliary prompt no time window."
            )
        auxiliary_text, elsewhere = self.auxiliary.recorded[attention.block]
        keys = [slice(attention.text_length)] + [slice(attention.q.shape[2], None)] * self.blend.sources
        concept_text = attention.attend_to(keys)
        noun_map = contrast_places(compute_noun_map(attention.read_prompt(tokens), tokens))
        share, auxiliary_share = compute_shares(noun_map, elsewhere, self.blend.strength)
        self.maps.append(share.mean(1))
        return _scale_heads(concept_text, share - 1) + _scale_heads(auxiliary_text, auxiliary_share)


def _scale_heads(rows: Tensor, weight: Tensor) -> Tensor:
    """Scales rows (batch, rows, heads x dim) by a weight per head (batch, heads, rows)."""
    heads = rearrange(rows.float(), "B L (H D) -> B L H D", H=weight.shape[1])
    return rearrange(heads * rearrange(weight, "B H L -> B L H 1"), "B L H D -> B L (H D)")
