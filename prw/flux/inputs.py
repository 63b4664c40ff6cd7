"""What FLUX is asked: one frozen type from the loop, the samplers and the benches to the model's forward."""

from typing import NamedTuple

from torch import Tensor


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
