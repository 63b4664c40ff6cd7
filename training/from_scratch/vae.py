"""A small autoencoder in the layout of TAESD with 16 channels, so that stock loaders take it.

Its latents are the 16 principal components of 8 x 8 patches: a linear space, smooth by construction, in which a
small FLUX learns fast. No encoder has to be trained for that: one whose convolutions only move pixels computes it
exactly (`make_principal_encoder`). The decoder is trained to draw sharp edges where 16 numbers leave them open.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...prw.flux.flux1 import LATENT_SCALE, LATENT_SHIFT
from .learner import Learner, LearnerPlan

PATCH = 8
CHANNELS = 16
WIDTH = 64
QUARTERS = ((0, 0), (0, 1), (1, 0), (1, 1))
INNER = 2.0
"""The decoder sees latents divided by this, where its first layer (tanh(x / 3) * 3) is nearly linear."""


class Clamp(nn.Module):
    """TAESD's first layer of the decoder."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def conv3x3(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            conv3x3(WIDTH, WIDTH), nn.ReLU(), conv3x3(WIDTH, WIDTH), nn.ReLU(), conv3x3(WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


def make_encoder() -> nn.Sequential:
    layers: list[nn.Module] = [conv3x3(3, WIDTH), Block()]
    for _ in range(3):
        layers += [conv3x3(WIDTH, WIDTH, stride=2, bias=False), Block(), Block(), Block()]
    return nn.Sequential(*layers, conv3x3(WIDTH, CHANNELS))


def make_decoder() -> nn.Sequential:
    layers: list[nn.Module] = [Clamp(), conv3x3(CHANNELS, WIDTH), nn.ReLU()]
    for _ in range(3):
        layers += [Block(), Block(), Block(), nn.Upsample(scale_factor=2), conv3x3(WIDTH, WIDTH, bias=False)]
    return nn.Sequential(*layers, Block(), conv3x3(WIDTH, 3))


class SmallVAE(nn.Module):
    """Turns pictures (batch, 3, height, width) in 0..1 into latents as FLUX's VAE gives them, and back."""

    def __init__(self):
        super().__init__()
        self.taesd_encoder, self.taesd_decoder = make_encoder(), make_decoder()
        self.vae_scale = nn.Parameter(torch.tensor(LATENT_SCALE / INNER))
        self.vae_shift = nn.Parameter(torch.tensor(LATENT_SHIFT))

    def encode(self, pictures: Tensor) -> Tensor:
        return self.taesd_encoder(pictures) / self.vae_scale + self.vae_shift

    def decode(self, latents: Tensor) -> Tensor:
        return self.taesd_decoder((latents - self.vae_shift) * self.vae_scale).clamp(0, 1)


class Components:
    """The linear map between patches (values 0..1) and latents of about unit size, FLUX's own scale."""

    def __init__(self, mean: Tensor, basis: Tensor, size: Tensor):
        self.mean, self.basis, self.size = mean, basis, size

    @classmethod
    def fit(cls, pictures: Tensor) -> "Components":
        """Fits the map to typical pictures (batch, 3, height, width).

        Our choice: a component is divided by the square root of its own size, half way between keeping the
        sizes (details drown in noise) and making all equal (details are most of the loss); one scale for all.
        """
        patches = split_patches(pictures).flatten(0, -2).double()
        mean = patches.mean(0)
        values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        values, vectors = values.flip(0)[:CHANNELS], vectors.flip(1)[:, :CHANNELS]
        size = values**0.25
        size = size * (values / size**2).mean().sqrt()
        return cls(mean.float(), vectors.float().contiguous(), size.float())  # as they come from a checkpoint

    def list_tensors(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "basis": self.basis, "size": self.size}

    def encode(self, pictures: Tensor) -> Tensor:
        """Gives latents of unit size, what FLUX sees (batch, 16, height / 8, width / 8)."""
        return rearrange((split_patches(pictures) - self.mean) @ self.basis / self.size, "b h w c -> b c h w")

    def decode(self, latents: Tensor) -> Tensor:
        patches = rearrange(latents, "b c h w -> b h w c") * self.size @ self.basis.T + self.mean
        return rearrange(patches, "b h w (c p q) -> b c (h p) (w q)", p=PATCH, q=PATCH)


def split_patches(pictures: Tensor) -> Tensor:
    """Turns (batch, 3, height, width) into (batch, height / 8, width / 8, 192)."""
    return rearrange(pictures, "b c (h p) (w q) -> b h w (c p q)", p=PATCH, q=PATCH)


@torch.no_grad()
def make_principal_encoder(components: Components) -> nn.Sequential:
    """Makes an encoder of TAESD's layout that computes the components exactly.

    Each strided convolution moves 2 x 2 pixels into channels; blocks pass on what is not negative, so the last
    step keeps positive and negative parts of a component apart.
    """
    layers = make_encoder()
    for parameter in layers.parameters():
        parameter.zero_()
    first, *halving, last = (layer for layer in layers if isinstance(layer, nn.Conv2d))
    first.weight[:3, :, 1, 1] = torch.eye(3)
    for layer, channels in zip(halving, (3, 12)):
        for place, (dy, dx) in enumerate(QUARTERS):
            for c in range(channels):
                layer.weight[place * channels + c, c, 1 + dy, 1 + dx] = 1
    linear = components.basis / components.size / INNER
    for dy, dx in QUARTERS:
        taps = torch.stack([linear[_pixel_index(c, dy, dx)] for c in range(48)], dim=1)  # (16, 48)
        halving[2].weight[:CHANNELS, :48, 1 + dy, 1 + dx] = taps
        halving[2].weight[CHANNELS : 2 * CHANNELS, :48, 1 + dy, 1 + dx] = -taps
    last.weight[:, :CHANNELS, 1, 1] = torch.eye(CHANNELS)
    last.weight[:, CHANNELS : 2 * CHANNELS, 1, 1] = -torch.eye(CHANNELS)
    last.bias = nn.Parameter(-components.mean @ linear)
    return layers


@torch.no_grad()
def collapse_encoder(vae: SmallVAE) -> tuple[Tensor, Tensor]:
    """Gives the matrix (192, 16) and the offset (16) to which a principal encoder amounts, in the VAE's own scale."""
    *_, halving, last = (layer for layer in vae.taesd_encoder if isinstance(layer, nn.Conv2d))
    taps, offset = halving.weight, last.bias
    assert offset is not None
    weight = torch.zeros(3 * PATCH**2, CHANNELS, device=offset.device)
    for dy, dx in QUARTERS:
        for channel in range(48):
            weight[_pixel_index(channel, dy, dx)] = taps[:CHANNELS, channel, 1 + dy, 1 + dx]
    return weight / vae.vae_scale, offset / vae.vae_scale + vae.vae_shift


def _pixel_index(channel: int, dy: int, dx: int) -> int:
    """Says which value of an 8 x 8 patch a channel of the 4 x 4 level is, once the last step moves by (dy, dx)."""
    outer, inner, colour = channel // 12, channel % 12 // 3, channel % 3
    (oy, ox), (iy, ix) = QUARTERS[outer], QUARTERS[inner]
    return colour * PATCH**2 + (4 * dy + 2 * oy + iy) * PATCH + 4 * dx + 2 * ox + ix


def to_tensor(pictures: np.ndarray) -> Tensor:
    """Turns uint8 (batch, height, width, 3) into 0..1 (batch, 3, height, width)."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).movedim(-1, 1).float() / 255


class DecoderTraining(Learner):
    """Trains a decoder to undo the components on pictures (batch, 3, height, width) that `draw(rng, batch)` gives.

    Latents are blurred by noise of up to a fifth of their size, because a sampler's latents are not perfect.
    """

    def __init__(
        self,
        decoder: nn.Module,
        components: Components,
        draw: Callable[[np.random.Generator, int], Tensor],
        rng: np.random.Generator,
        plan: LearnerPlan,
        precision: str = "fp32",
    ):
        self.decoder = decoder.to(memory_format=torch.channels_last)
        self.components, self.draw, self.precision = components, draw, precision
        super().__init__("decoder", {"decoder": decoder}, plan, plan.iterations // 20, weight_decay=0.0)
        self.rng = rng

    def step(self) -> float:
        device = self.parameters[0].device
        assert self.rng is not None
        pictures = self.draw(self.rng, self.plan.batch)
        latents = self.components.encode(pictures)
        latents = latents + torch.randn_like(latents) * 0.2 * torch.rand(len(latents), 1, 1, 1)
        pictures = pictures.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            decoded = self.decoder((latents / INNER).to(device)).float()
        return self.update(F.l1_loss(decoded, pictures) + F.mse_loss(decoded, pictures))

    def list_groups(self) -> dict[str, Mapping[str, Tensor]]:
        return super().list_groups() | {
            "random": {"state": torch.get_rng_state()},
            "components": self.components.list_tensors(),
        }

    def load_groups(self, groups: dict[str, dict[str, Tensor]]) -> None:
        super().load_groups(groups)
        torch.set_rng_state(groups["random"]["state"])
        if "components" in groups:  # checkpoints of old have none
            self.components = Components(**groups["components"])
