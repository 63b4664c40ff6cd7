"""The toy world's encoders as training and sampling ask for them (lessons.Codec)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .text import TextEncoder
from .vae import ToyVAE, pixels


class ToyCodec:
    def __init__(self, text: TextEncoder, vae: ToyVAE):
        self.text, self.vae = text, vae

    @torch.no_grad()
    def encode(self, pictures: Sequence[np.ndarray]) -> Tensor:
        return self.vae.encode(pixels(np.stack(pictures)))

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self.text.encode(prompts)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        pictures = self.vae.decode(latents.float().cpu())
        return (pictures * 255).round().to(torch.uint8).movedim(1, -1).numpy()
