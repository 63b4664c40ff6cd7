"""Looking on at FLUX's attention: what some prompts' pictures read of their words, block by block.

Watches travel in transformer_options. `look` (an `attn1_patch`) shows them every chunk of the batch whose prompt
they ask for, and `answer` (an `attn1_output_patch`) adds what they say to the picture's rows. `look` must be the last
of its kind: it sees the keys that others append.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..flux.math import rotate
from ..weaving import Attend
from .marked_prompt import Words

OPTION = "cologen_watches"
SAID = "cologen_watch_said"
"""Between the two hooks of one block, in the options that only they share."""


class View(NamedTuple):
    """One prompt's chunk in one block: q, k before rotation, (batch, heads, tokens, head_dim)."""

    block: str
    q: Tensor
    k: Tensor
    v: Tensor
    pe: Tensor
    mask: Tensor | None
    text: int
    """Rows of text; the picture's follow."""
    picture: int
    attend: Callable[..., Attend]
    """Positions -> attention over them."""

    def borne_by(self, columns: Iterable[slice]) -> Tensor:
        """What the picture's rows (batch, rows, dim) get from some of the keys.

        Attention is linear in the values: with all others at 0 it is these keys' mass times their mean, exactly.
        """
        part = torch.zeros_like(self.v)
        for where in columns:
            part[:, :, where] = self.v[:, :, where]
        out = self.attend(self.pe)(self.q, self.k, part, mask=self.mask)
        return out[:, self.text : self.text + self.picture]

    def reading(self, words: Words) -> Tensor:
        """How the picture's rows share their attention to the prompt among its tokens (batch, heads, rows, tokens)."""
        rows = slice(self.text, self.text + self.picture)
        q = rotate(self.q[:, :, rows], self.pe[:, :, rows]).float()
        k = rotate(self.k[:, :, : words.prompt], self.pe[:, :, : words.prompt]).float()
        return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)


@dataclass
class Watch(ABC):
    words: Mapping[Hashable, Words]
    """Of the prompts that it looks at, by the host's name for them."""
    blocks: Set[str]
    picture: int
    """Tokens of the picture."""
    attend: Callable[..., Attend]

    @abstractmethod
    def see(self, view: View, words: Words) -> Tensor | None:
        """Looks at a chunk; may answer with what its picture's rows (batch, rows, dim) get in addition."""


@torch.compiler.disable()
def look(q, k, v, pe=None, attn_mask=None, extra_options: dict[str, Any] | None = None) -> dict:
    options = extra_options or {}
    block = f"{options.get('block_type')}_blocks.{options.get('block_index')}"
    for watch in options.get(OPTION, ()):
        for i, name in enumerate(options["uuids"] if block in watch.blocks else ()):
            if name in watch.words:
                size = len(q) // len(options["uuids"])
                chunk = slice(i * size, (i + 1) * size)
                parts = (_part(tensor, chunk, len(q)) for tensor in (q, k, v, pe, attn_mask))
                view = View(block, *parts, options["img_slice"][0], watch.picture, watch.attend)
                said = watch.see(view, watch.words[name])
                if said is not None:
                    options.setdefault(SAID, []).append((chunk, slice(view.text, view.text + view.picture), said))
    return {}


@torch.compiler.disable()
def answer(attn: Tensor, extra_options: dict[str, Any]) -> Tensor:
    for chunk, rows, said in extra_options.pop(SAID, ()):
        attn[chunk, rows] += said.to(attn.dtype)
    return attn


def _part(tensor: Tensor | None, chunk: slice, batch: int) -> Tensor | None:
    """Masks and positions may be one for all."""
    return tensor if tensor is None or tensor.ndim < 3 or len(tensor) != batch else tensor[chunk]
