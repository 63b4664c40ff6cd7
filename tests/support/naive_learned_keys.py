"""Learned keys written out naively: a number's keys and values by loops, and a FLUX.2 that reads them as they are.

Shares nothing with the pack; the rest of FLUX.2 is naive_flux2.py's.
"""

import math

import torch
from naive_flux2 import HEAD, NaiveFlux2, normalize_rms, rotate, silu, softmax

BLOCKS = ("double_0", "double_1", "single_0", "single_1", "single_2")
"""Of tests' tiny FLUX.2."""


def learned_keys_file(seed=21, width=256, keys=7, blocks=BLOCKS):
    """The tensors of a file for one number."""
    g, tensors = torch.Generator().manual_seed(seed), {}
    for part in "kv":
        for block in blocks:
            name = f"proj_{part}.{block}"
            tensors |= {
                f"{name}.prefer_value_embedder.0.weight": torch.randn(width, 256, generator=g) / 8,
                f"{name}.prefer_value_embedder.0.bias": torch.randn(width, generator=g) / 4,
                f"{name}.prefer_value_embedder.2.weight": torch.randn(width, width, generator=g) / 16,
                f"{name}.prefer_value_embedder.2.bias": torch.randn(width, generator=g) / 4,
                f"{name}.positional_embedding": torch.randn(keys, width, generator=g),
            }
    return tensors


def compute_keys(tensors, part, block, value):
    """(keys, width): the same vector for all, and one of its own for each."""
    name = f"proj_{part}.{block.replace('_blocks.', '_')}"
    scaled = {0.2: 200, 0.3: 300, 0.7: 700, 0.8: 800, 0.5: 500, 45.0: 45056, 50: 49920}[value]  # as bf16 rounds them
    angles = [scaled * math.exp(-math.log(10000) * i / 128) for i in range(128)]
    features = torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
    hidden = silu(
        tensors[f"{name}.prefer_value_embedder.0.weight"] @ features + tensors[f"{name}.prefer_value_embedder.0.bias"]
    )
    vector = (
        tensors[f"{name}.prefer_value_embedder.2.weight"] @ hidden + tensors[f"{name}.prefer_value_embedder.2.bias"]
    )
    return torch.stack([vector + position for position in tensors[f"{name}.positional_embedding"]])


class NaiveLearnedKeys(NaiveFlux2):
    """Sources that have `tensors` are learned keys: dicts with tensors, value and perhaps log_bias."""

    def __call__(self, x, t, context, pooled=None, guidance=None, sources=(), bank=None, **rest):
        self.learned = [source for source in sources if "tensors" in source]
        pictures = [source for source in sources if "tensors" not in source]
        return super().__call__(x, t, context, pooled, guidance, pictures, bank, **rest)

    def attend(self, qkv, scales, block, h):
        q, k, v = (part.unflatten(-1, (-1, HEAD)).transpose(1, 2) for part in qkv.chunk(3, -1))
        q, k = (rotate(normalize_rms(part, scale), self.ids) for part, scale in zip((q, k), scales))
        mask = self.mask
        for source in self.learned:
            parts = (compute_keys(source["tensors"], part, block, source["value"]) for part in "kv")
            more_k, more_v = (
                part.unflatten(-1, (-1, HEAD)).transpose(0, 1).expand(len(q), -1, -1, -1) for part in parts
            )
            k, v = torch.cat([k, more_k], 2), torch.cat([v, more_v], 2)
            columns = torch.full((len(mask), more_k.shape[2]), -torch.inf)  # pictures' rows do not read them
            columns[self.owner < 2] = torch.as_tensor(source.get("log_bias", 0.0)).expand(int((self.owner < 2).sum()))[
                :, None
            ]
            mask = torch.cat([mask, columns], 1)
        out = softmax(q @ k.transpose(-1, -2) / math.sqrt(HEAD) + mask) @ v
        return out.transpose(1, 2).flatten(2)
