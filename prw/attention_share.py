"""How much of their attention tokens give to some keys: eq. 7's softmax, summed over these keys.

FLUX's fused attention does not tell its weights, so they are computed once more from q and k, a few queries at a time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .flux.math import rotate

MAX_WEIGHTS = 2**24
"""Weights that are held at once, in fp32: 64 MiB."""


def measure_shares(
    q: Tensor, k: Tensor, pe: Tensor, mask: Tensor | None, rows: slice, columns: Sequence[slice]
) -> Tensor:
    """Computes which share of their attention the rows give to each range of keys, (ranges, batch, rows).

    The mean over heads. q and k are a block's before rotation (batch, heads, tokens, head_dim); `mask` is what is added to
    the weights' logarithms (queries, keys), also for each sample or head.
    """
    batch, heads, keys, head_dim = k.shape
    turned = rotate(k, pe).float().mT
    mask = mask[:, None] if mask is not None and mask.ndim == 3 else mask
    size = max(1, MAX_WEIGHTS // (batch * heads * keys))
    shares = []
    for start in range(rows.start, rows.stop, size):
        part = slice(start, min(start + size, rows.stop))
        scores = rotate(q[:, :, part], pe[:, :, part]).float() @ turned * head_dim**-0.5
        if mask is not None:
            scores += mask[..., part, :].float()
        weights = scores.softmax(-1)
        shares.append(torch.stack([weights[..., keys].sum(-1).mean(1) for keys in columns]))
    return torch.cat(shares, dim=-1)
