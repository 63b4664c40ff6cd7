"""What training asks of a VAE and text encoders: those of a family's files (families.py), the host's, or the built-in world's."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ...prw.personalization.marked_prompt import MarkedTokens


class Encoders(Protocol):
    """Pictures and prompts to what FLUX reads, and latents back to pictures."""

    def encode(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Turns pictures of one size, uint8 (height, width, 3), into latents as the VAE gives them."""

    def decode(self, latents: Tensor) -> np.ndarray:
        """Turns such latents into pictures uint8 (batch, height, width, 3)."""

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Gives context (batch, tokens, width) and pooled (batch, width), of width 0 for a FLUX that reads none."""

    def count_tokens(self, prompts: Sequence[str]) -> list[int] | None:
        """Counts tokens of each prompt before padding; None where there is no padding that could be left out."""

    def find_words(self, prompt: str) -> MarkedTokens:
        """Finds the rows of a prompt's context that belong to its words in brackets: a [dog] on the beach."""

    def identity(self) -> Any:
        """Gives everything that decides the answers, ready for JSON."""
