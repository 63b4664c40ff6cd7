"""What FLUX is asked: one frozen type from the loop, the samplers and the benches to the model's forward."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from .math import ModulationOut

BlockModulation = Callable[[str, Any], tuple[ModulationOut, Any]]
"""A block's name and the block -> what modulates the source in it: attention and MLP, of a single block both by the first."""


class EncodedPrompt(NamedTuple):
    """A prompt after the text encoders."""

    context: Tensor
    """(batch, tokens, width)"""
    pooled: Tensor | None
    """(batch, width); None for a FLUX that has no pooled vector."""


class FluxInputs(NamedTuple):
    """One forward of FLUX."""

    x: Tensor
    """Noisy latents (batch, channels, height, width)."""
    times: Tensor
    """(batch,), from 1 (noise) to 0 (picture)."""
    context: Tensor
    """(batch, tokens, width)"""
    pooled: Tensor | None
    guidance: Tensor | None = None
    """(batch,); None where the model has no embedding for it."""


class SourceConditions(NamedTuple):
    """What a source's modulation may depend on, sample by sample; a family takes what it has."""

    times: Tensor
    """0, a clean picture's, or the target's."""
    pooled: Tensor | None
    guidance: Tensor | None
