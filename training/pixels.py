"""A stand-in for a VAE: pixels rearranged into FLUX's 16 latent channels and back, nothing learned."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..prw.embedded import LATENT_SCALE, LATENT_SHIFT

SHRINK = 4
COLOURS = 12
"""Of 16 channels: three colours of the 2 x 2 shrunken pixels that a latent covers; the rest stays 0."""


def latent_of(picture: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(picture.convert("RGB"))).float().div(127.5).sub(1).movedim(-1, 0)[None]
    small = F.pixel_unshuffle(F.avg_pool2d(pixels, SHRINK), 2)
    return F.pad(small, (0, 0, 0, 0, 0, 16 - COLOURS)) / LATENT_SCALE + LATENT_SHIFT


def picture_of(latent: Tensor) -> Image.Image:
    small = F.pixel_shuffle((latent[:, :COLOURS].float() - LATENT_SHIFT) * LATENT_SCALE, 2)
    pixels = F.interpolate(small, scale_factor=SHRINK, mode="bilinear")[0].clamp(-1, 1)
    return Image.fromarray(pixels.add(1).mul(127.5).round().byte().movedim(0, -1).numpy())
