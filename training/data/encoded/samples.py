"""Encoded samples: what the VAE and the text encoders made of examples, one row a sample."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor

TENSORS = ("target", "source", "context", "pooled")


@dataclass(frozen=True, eq=False)
class EncodedSamples:
    """Samples of one task and one size, in memory."""

    ids: tuple[str, ...]
    prompts: tuple[str, ...]
    target: Tensor
    """Latents of the wanted pictures as the VAE gives them (samples, channels, height, width)."""
    source: Tensor
    """Latents of the given pictures, likewise."""
    context: Tensor
    """The text encoder's tokens (samples, tokens, width)."""
    pooled: Tensor
    """The prompt's vector (samples, width): CLIP's; of width 0 for a FLUX that reads none."""

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, indices: Sequence[int]) -> "EncodedSamples":
        rows = list(indices)
        ids, prompts = (tuple(texts[row] for row in rows) for texts in (self.ids, self.prompts))
        return EncodedSamples(ids, prompts, *(getattr(self, name)[rows] for name in TENSORS))


def concat_samples(parts: Sequence[EncodedSamples]) -> EncodedSamples:
    """Puts samples one behind the other; shorter contexts are padded to the longest."""
    tokens = max(part.context.shape[1] for part in parts)
    parts = [replace(part, context=pad_context(part.context, tokens)) for part in parts]
    ids, prompts = (tuple(chain.from_iterable(getattr(part, name) for part in parts)) for name in ("ids", "prompts"))
    return EncodedSamples(ids, prompts, *(torch.cat([getattr(part, name) for part in parts]) for name in TENSORS))


def pad_context(context: Tensor, tokens: int) -> Tensor:
    """Puts zeros behind (batch, tokens, width) up to so many tokens."""
    if tokens == context.shape[1]:
        return context
    return torch.nn.functional.pad(context, (0, 0, 0, tokens - context.shape[1]))
