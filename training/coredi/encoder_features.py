"""What an encoder sees in a picture, few tokens of it: the means of 8 x 8 cells and of the whole.

The encoder is DINOv2 from a local folder, at one patch a token of FLUX, or the VAE itself: FLUX's own tokens.
"""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...prw.coredi.features import make_pooling_matrix
from ...prw.files.safe_file import SafeFile
from ...prw.files.safetensors_writer import write_safetensors
from ...prw.positions import token_grid
from ...prw.source_pass import Host
from ..checkpoint.checkpoints import TrainingError
from ..data.encoded.dataset import MemoryDataset
from ..data.model_folder import IMAGENET_MEAN_STD, load_network
from ..encoders.protocol import Encoders

CHUNK = 16


class Eye(nn.Module):
    """DINOv2, or what transformers opens like it."""

    def __init__(self, folder: Path):
        super().__init__()
        self.network = load_network(folder, "AutoModel").float()
        self.name = folder.name

    @torch.no_grad()
    def forward(self, pictures: Tensor, rows: int, columns: int) -> Tensor:
        """Pictures (batch, height, width, 3) in 0..255 as patches (batch, rows * columns, wide)."""
        patch = self.network.config.patch_size
        mean, size = (torch.tensor(part, device=pictures.device).view(3, 1, 1) for part in IMAGENET_MEAN_STD)
        seen = F.interpolate(pictures.movedim(-1, 1).float(), (rows * patch, columns * patch), mode="bicubic")
        found = self.network(pixel_values=(seen / 255 - mean) / size).last_hidden_state
        if found.shape[1] < rows * columns:
            raise TrainingError(
                f"{self.name} answers with {found.shape[1]} tokens, expected one for each of {rows * columns} patches: "
                f"name a folder of DINOv2 as the recipe's encoder."
            )
        return found[:, -rows * columns :]  # class and register tokens come first


@torch.no_grad()
def features_of(host: Host, lessons: MemoryDataset, encoders: Encoders, eye: Eye | None = None) -> Tensor:
    """Of every lesson's target (count, cells + 1, wide); without an eye the VAE's own."""
    size, parts = token_grid(lessons.samples.target, host.flux.patch_size), []
    pool, device = make_pooling_matrix(*size), host.device
    for latents in lessons.samples.target.split(CHUNK):
        if eye is None:
            seen = host.tokens(host.latent_in(latents.to(device)).float())[0]
        else:
            seen = eye(torch.from_numpy(encoders.decode(latents)).to(device), *size)
        parts.append(pool @ seen.float().cpu())
    return torch.cat(parts).half()


def kept_features(host: Host, lessons: MemoryDataset, encoders: Encoders, encoder: str, folder: Path) -> Tensor:
    """The same; what another encoder than the VAE has seen is kept in the run's folder."""
    if not encoder:
        return features_of(host, lessons, encoders)
    depends = "\n".join((encoder, *lessons.samples.ids))
    path = folder / f"{lessons.task}-{hashlib.blake2b(depends.encode(), digest_size=8).hexdigest()}.safetensors"
    if not path.exists():
        found = features_of(host, lessons, encoders, Eye(Path(encoder)).to(host.device))
        write_safetensors(path, {"features": found}, {})
    return SafeFile(path)["features"]
