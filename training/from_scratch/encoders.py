"""A world's VAE and text encoder as Encoders (encoders/protocol.py)."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ...prw.personalization.marked_prompt import MarkedTokens, find_marked_tokens
from .text import TextEncoder, tokenize_as_host
from .vae import SmallVAE, collapse_encoder, split_patches, to_tensor


class SmallEncoders:
    """Encodes pictures and prompts by a world's own models."""

    def __init__(self, text: TextEncoder, vae: SmallVAE):
        self.text, self.vae = text, vae
        self.weight, self.bias = collapse_encoder(vae)
        self.vae.taesd_decoder.to(memory_format=torch.channels_last)  # two thirds of the time on a CPU

    @torch.no_grad()
    def encode(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Gives what the VAE's encoder would, by the one matrix to which it amounts."""
        patches = split_patches(to_tensor(np.stack(pictures)).to(self.bias))
        return (patches @ self.weight + self.bias).movedim(-1, 1).contiguous()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        pictures = self.vae.decode(latents.float())
        return (pictures * 255).round().to(torch.uint8).movedim(1, -1).cpu().numpy()

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self.text.encode(prompts)

    def count_tokens(self, prompts: Sequence[str]) -> None:
        """Gives None: nothing is padded: every prompt has as many tokens."""

    def find_words(self, prompt: str) -> MarkedTokens:
        return find_marked_tokens(prompt, partial(tokenize_as_host, self.text, word_ids=True))

    def identity(self) -> str:
        """Gives a hash of all weights."""
        return hash_weights((*self.text.state_dict().items(), *self.vae.state_dict().items()))


def hash_weights(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Hashes weights of any type with their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in weights:
        digest.update(name.encode() + weight.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
