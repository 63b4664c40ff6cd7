"""Attention probes: they read what a picture's tokens take from its prompt in FLUX's attention, and may add to it.

Probes travel in transformer_options[PROBES]. `observe_attention` (an `attn1_patch`) shows them each chunk of the batch
whose prompt they ask for; `add_residuals` (an `attn1_output_patch`) adds their answers to the picture's rows.
`observe_attention` must be the last patch of its kind, so that it sees the keys that others append.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..flux.math import rotate
from ..weaving import Attend
from .marked_prompt import MarkedTokens

PROBES = "cologen_probes"
RESIDUALS = "cologen_probe_residuals"
"""In the options that the two patches of one block share."""


class BlockAttention(NamedTuple):
    """The attention of one block for one prompt's chunk; q, k before rotation, (batch, heads, tokens, head_dim)."""

    block: str
    q: Tensor
    k: Tensor
    v: Tensor
    pe: Tensor
    mask: Tensor | None
    text_length: int
    """Rows of text; the picture's follow."""
    picture_length: int
    make_attention: Callable[..., Attend]
    """Positions -> attention over them."""

    def attend_to(self, columns: Iterable[slice]) -> Tensor:
        """Computes what the picture's rows (batch, rows, dim) get from some of the keys.

        Attention is linear in the values: with all others at 0 it is these keys' mass times their mean, exactly.
        """
        values = torch.zeros_like(self.v)
        for where in columns:
            values[:, :, where] = self.v[:, :, where]
        out = self.make_attention(self.pe)(self.q, self.k, values, mask=self.mask)
        return out[:, self.text_length : self.text_length + self.picture_length]

    def read_prompt(self, tokens: MarkedTokens) -> Tensor:
        """Computes how the picture's rows share their attention to the prompt (batch, heads, rows, tokens of it)."""
        rows = slice(self.text_length, self.text_length + self.picture_length)
        q = rotate(self.q[:, :, rows], self.pe[:, :, rows]).float()
        k = rotate(self.k[:, :, : tokens.prompt_length], self.pe[:, :, : tokens.prompt_length]).float()
        return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)


@dataclass
class AttentionProbe(ABC):
    """Observes the attention of some prompts in some blocks."""

    tokens: Mapping[Hashable, MarkedTokens]
    """Marked tokens of the prompts that it observes, by the host's name for a prompt."""
    blocks: Set[str]
    picture_length: int
    """Tokens of the picture."""
    make_attention: Callable[..., Attend]

    @abstractmethod
    def observe(self, attention: BlockAttention, tokens: MarkedTokens) -> Tensor | None:
        """Reads one chunk; may return what to add to its picture's rows (batch, rows, dim)."""


@torch.compiler.disable()
def observe_attention(q, k, v, pe=None, attn_mask=None, extra_options: dict[str, Any] | None = None) -> dict:
    """Calls the probes, as an `attn1_patch`."""
    options = extra_options or {}
    block = f"{options.get('block_type')}_blocks.{options.get('block_index')}"
    for probe in options.get(PROBES, ()):
        for i, name in enumerate(options["uuids"] if block in probe.blocks else ()):
            if name in probe.tokens:
                size, text_length = len(q) // len(options["uuids"]), options["img_slice"][0]
                chunk = slice(i * size, (i + 1) * size)
                pe_chunk, mask = _take_chunk(pe, chunk, len(q)), _take_chunk(attn_mask, chunk, len(q))
                attention = BlockAttention(
                    block,
                    q[chunk],
                    k[chunk],
                    v[chunk],
                    pe_chunk,
                    mask,
                    text_length,
                    probe.picture_length,
                    probe.make_attention,
                )
                residual = probe.observe(attention, probe.tokens[name])
                if residual is not None:
                    rows = slice(text_length, text_length + probe.picture_length)
                    options.setdefault(RESIDUALS, []).append((chunk, rows, residual))
    return {}


@torch.compiler.disable()
def add_residuals(attn: Tensor, extra_options: dict[str, Any]) -> Tensor:
    """Adds what the probes returned, as an `attn1_output_patch`."""
    for chunk, rows, residual in extra_options.pop(RESIDUALS, ()):
        attn[chunk, rows] += residual.to(attn.dtype)
    return attn


def _take_chunk(tensor: Any, chunk: slice, batch: int) -> Any:
    """Takes a chunk's part of masks and positions, which may be one for all, or None."""
    return tensor if tensor is None or tensor.ndim < 3 or len(tensor) != batch else tensor[chunk]
