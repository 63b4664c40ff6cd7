"""A Diffusion Template's pass and the base that reads it, written out naively on the naive FLUX.2.

A template is one full-attention sequence [its prompt, its pictures] at timestep 0; what the base gets of it is every
row's key and value in every block.
"""

import math

import torch
from naive_flux2 import FIRST_SOURCE, HEAD, NaiveFlux2, flatten, normalize_rms, rotate, softmax


def split_heads(x):
    return x.unflatten(-1, (-1, HEAD)).transpose(1, 2)


class NaiveTemplate(NaiveFlux2):
    """A FLUX.2 whose rows all see one another; `kept` has each block's turned keys, and values."""

    def attend(self, qkv, scales, block, h):
        q, k, v = map(split_heads, qkv.chunk(3, -1))
        q, k = (rotate(normalize_rms(part, scale), self.ids) for part, scale in zip((q, k), scales))
        self.kept[block] = (k, v)
        return (softmax(q @ k.transpose(-1, -2) / math.sqrt(HEAD)) @ v).transpose(1, 2).flatten(2)

    def __call__(self, prompt, *latents):
        self.kept, text, batch = {}, prompt.shape[1], len(prompt)
        places = [torch.tensor([[0.0, 0, 0, i] for i in range(text)])]
        for number, latent in enumerate(latents, 1):
            rows, columns = latent.shape[-2:]
            places.append(torch.tensor([[10.0 * number, i, j, 0] for i in range(rows) for j in range(columns)]))
        self.ids = torch.cat(places)
        self.owner = torch.tensor([0] * text + [FIRST_SOURCE] * (len(self.ids) - text))
        still = self.vec(torch.zeros(batch), None)

        def modulate(of_text, of_picture):
            parts = (of_text, text), (of_picture, len(self.ids) - text)
            return torch.cat([self.linear(name, still).expand(-1, count, -1) for name, count in parts], 1)

        double = modulate("double_stream_modulation_txt.lin", "double_stream_modulation_img.lin")
        single = modulate("single_stream_modulation.lin", "single_stream_modulation.lin")
        pictures = torch.cat([flatten(latent).expand(batch, -1, -1) for latent in latents], 1)
        rows = torch.cat([self.linear("txt_in", prompt), self.linear("img_in", pictures)], 1)
        for i in range(self.count("double_blocks")):
            rows = self.run_double(f"double_blocks.{i}", rows, double)
        for i in range(self.count("single_blocks")):
            rows = self.run_single(f"single_blocks.{i}", rows, single)
        return self.kept


class NaiveReader(NaiveFlux2):
    """The base: its text and picture also read what templates kept."""

    def attend(self, qkv, scales, block, h):
        q, k, v = map(split_heads, qkv.chunk(3, -1))
        q, k = (rotate(normalize_rms(part, scale), self.ids) for part, scale in zip((q, k), scales))
        weights = [torch.zeros(q.shape[2], k.shape[2])]
        for kept, log_bias in self.templates:
            k, v = torch.cat([k, kept[block][0]], 2), torch.cat([v, kept[block][1]], 2)
            bias = torch.as_tensor(log_bias).expand(q.shape[2], kept[block][0].shape[2])
            weights.append(bias)
        scores = q @ k.transpose(-1, -2) / math.sqrt(HEAD) + torch.cat(weights, 1)
        return (softmax(scores) @ v).transpose(1, 2).flatten(2)

    def __call__(self, templates, *args, **kwargs):
        """`templates`: what each kept, and the log weight of its keys, a number or (queries, 1 or keys)."""
        self.templates = templates
        return super().__call__(*args, **kwargs)
