"""What an encoder sees in a picture, in few tokens: the means of 8 x 8 cells and of the whole.

The encoder is DINOv2 from a local folder, at one patch a token of FLUX, or the VAE itself: FLUX's own tokens.
"""

import hashlib
from pathlib import Path
from typing import Any

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


class FeatureEncoder(nn.Module):
    """DINOv2, or what transformers opens like it."""

    def __init__(self, folder: Path):
        super().__init__()
        self.network = load_network(folder, "AutoModel").float()
        self.name = folder.name

    @torch.no_grad()
    def forward(self, pictures: Tensor, rows: int, columns: int) -> Tensor:
        """Encode pictures (batch, height, width, 3) in 0..255 into patches (batch, rows * columns, channels)."""
        config: Any = self.network.config
        patch = config.patch_size
        mean, size = (torch.tensor(part, device=pictures.device).view(3, 1, 1) for part in IMAGENET_MEAN_STD)
        resized = F.interpolate(pictures.movedim(-1, 1).float(), (rows * patch, columns * patch), mode="bicubic")
        tokens = self.network(pixel_values=(resized / 255 - mean) / size).last_hidden_state
        if tokens.shape[1] < rows * columns:
            raise TrainingError(
                f"{self.name} answers with {tokens.shape[1]} tokens, expected one for each of {rows * columns} patches: "
                f"name a folder of DINOv2 as the recipe's encoder."
            )
        return tokens[:, -rows * columns :]  # class and register tokens come first


@torch.no_grad()
def compute_features(
    host: Host, dataset: MemoryDataset, encoders: Encoders, encoder: FeatureEncoder | None = None
) -> Tensor:
    """Compute every target's features (count, cells + 1, channels); without an encoder those of the VAE."""
    size, parts = token_grid(dataset.samples.target, host.flux.patch_size), []
    pool, device = make_pooling_matrix(*size), host.device
    for latents in dataset.samples.target.split(CHUNK):
        if encoder is None:
            tokens = host.tokenize(host.scale_latent(latents.to(device)).float())[0]
        else:
            tokens = encoder(torch.from_numpy(encoders.decode(latents)).to(device), *size)
        parts.append(pool @ tokens.float().cpu())
    return torch.cat(parts).half()


def load_features(host: Host, dataset: MemoryDataset, encoders: Encoders, encoder: str, folder: Path) -> Tensor:
    """Load or compute features; those of another encoder than the VAE are kept in the run's folder."""
    if not encoder:
        return compute_features(host, dataset, encoders)
    depends = "\n".join((encoder, *dataset.samples.ids))
    path = folder / f"{dataset.task}-{hashlib.blake2b(depends.encode(), digest_size=8).hexdigest()}.safetensors"
    if not path.exists():
        network = FeatureEncoder(Path(encoder)).to(host.device)
        write_safetensors(path, {"features": compute_features(host, dataset, encoders, network)}, {})
    return SafeFile(path)["features"]
