"""Divide, conquer, integrate: two branches drawn side by side (Jin et al., ECCV 2024, arXiv 2412.04831).

The concept branch has the prompt as it is, the auxiliary branch a noun that FLUX knows well in the concept's place and
noise of its own. In every block of the first steps the concept's picture keeps, row by row, what its text says where
it draws the concept, and takes what the auxiliary's text says elsewhere.

Our choice for FLUX, which has no cross-attention: of the joint attention only the part that the text's keys bear is
blended (and, if asked for, the sources').
"""

from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor

from ..files.validate import between
from .attention_probe import View, Watch
from .marked_prompt import Words

OVER_WORDS, OVER_PLACES, GAIN = 10.0, 10.0, 500.0
"""Temperatures of the authors' code. At 4096 places, a picture of 1024 pixels, a map's mean is then 1/8; the fewer places,
the larger, and the further from 0 the strength that balances both branches."""


@dataclass(frozen=True)
class Blend:
    """How two branches are blended."""

    strength: float = 0.0
    """Of the auxiliary branch (their lambda): -inf keeps the concept's text, +inf takes the auxiliary's; usual -2 to 2."""
    end: float = 0.3
    """The part of the sampling after which the concept branch goes on alone."""
    first: int = 0
    last: int = 37
    """Blocks that blend, double blocks first: all but the last third of FLUX.1's 57."""
    sources: bool = False
    """Whether what the sources' keys bear is blended, too: the concept's source then acts where the concept is."""

    def __post_init__(self):
        between("strength", self.strength, -1e6, 1e6)
        between("end", self.end, 0, 1)
        if not 0 <= self.first <= self.last:
            raise ValueError(f"The blocks are {self.first} to {self.last}, expected a first one and a later last one.")


def noun_map(reading: Tensor, words: Words) -> Tensor:
    """Each row's sharpened attention (batch, heads, rows) to the noun, of its attention to all words."""
    return (OVER_WORDS * reading).softmax(-1)[..., list(words.noun)].sum(-1)


def contrast(noun: Tensor) -> Tensor:
    """A map with its places set against each other."""
    return GAIN * (OVER_PLACES * noun).softmax(-1)


def shares(concept: Tensor, auxiliary: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """How much of each branch's text a row takes; the two add up to 1."""
    own, other = torch.stack((concept, strength * auxiliary)).softmax(0)
    return own, other


@dataclass
class AuxiliaryBranch(Watch):
    """Runs first, as it would alone, and leaves what the concept branch needs of it."""

    left: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Block -> what its text bears, and the map of everything that is not its noun."""

    def see(self, view: View, words: Words) -> None:
        elsewhere = contrast(1 - noun_map(view.reading(words), words))
        self.left[view.block] = view.borne_by([slice(view.text)]).clone(), elsewhere  # a slice keeps the text's rows


@dataclass
class ConceptBranch(Watch):
    """Runs second, blended with what the auxiliary branch left."""

    auxiliary: AuxiliaryBranch
    blend: Blend
    maps: list[Tensor] = field(default_factory=list)
    """For each block the concept's share (batch, rows), mean of its heads."""

    def see(self, view: View, words: Words) -> Tensor:
        if view.block not in self.auxiliary.left:
            raise RuntimeError(
                "The auxiliary branch was not drawn in this step, so there is nothing to blend with: let EasyCache start "
                "after `end`, and give the auxiliary prompt no time window."
            )
        other, elsewhere = self.auxiliary.left[view.block]
        keys = [slice(view.text)] + [slice(view.q.shape[2], None)] * self.blend.sources
        own = view.borne_by(keys)
        share, rest = shares(contrast(noun_map(view.reading(words), words)), elsewhere, self.blend.strength)
        self.maps.append(share.mean(1))
        return _weighted(own, share - 1) + _weighted(other, rest)


def _weighted(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows (batch, rows, heads x dim) times a weight a head (batch, heads, rows)."""
    heads = rearrange(rows.float(), "B L (H D) -> B L H D", H=weight.shape[1])
    return rearrange(heads * rearrange(weight, "B H L -> B L H 1"), "B L H D -> B L (H D)")
