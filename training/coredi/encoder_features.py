"""What an encoder sees in a picture, in few tokens: the means of 8 x 8 cells and of the whole.

The encoder is a vision model of transformers from a local folder (DINOv2, SigLIP, CLIP: whatever answers with a token a
patch), at one patch a token of FLUX, or the VAE itself: FLUX's own tokens.
"""

import hashlib
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...prw.coredi.features import make_pooling_matrix
from ...prw.files.regular_file import read_regular_text
from ...prw.files.safe_file import SafeFile
from ...prw.files.safetensors_writer import write_safetensors
from ...prw.positions import token_grid
from ...prw.source_pass import Host
from ..checkpoint.checkpoints import TrainingError
from ..data.encoded.dataset import MemoryDataset
from ..data.model_folder import IMAGENET_MEAN_STD, MAX_CONFIG, load_network
from ..encoders.protocol import Encoders

CHUNK = 16


class FeatureEncoder(nn.Module):
    """A vision model of transformers; of one that reads text, too, the part that sees."""

    def __init__(self, folder: Path):
        super().__init__()
        network: Any = load_network(folder, "AutoModel")
        self.network: Any = getattr(network, "vision_model", network).float()
        self.name, self.mean_std = folder.name, read_mean_std(folder)
        parameters = inspect.signature(self.network.forward).parameters
        # DINOv2 takes any size; CLIP and SigLIP have to be asked
        self.options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in parameters else {}

    @torch.no_grad()
    def forward(self, pictures: Tensor, rows: int, columns: int) -> Tensor:
        """Encodes pictures (batch, height, width, 3) in 0..255 into patches (batch, rows * columns, channels)."""
        config: Any = self.network.config
        patch = config.patch_size
        mean, size = (torch.tensor(part, device=pictures.device).view(3, 1, 1) for part in self.mean_std)
        resized = F.interpolate(pictures.movedim(-1, 1).float(), (rows * patch, columns * patch), mode="bicubic")
        tokens = self.network(pixel_values=(resized / 255 - mean) / size, **self.options).last_hidden_state
        if tokens.shape[1] < rows * columns:
            raise TrainingError(
                f"{self.name} answers with {tokens.shape[1]} tokens, expected one for each of {rows * columns} patches: "
                f"name a folder of DINOv2, SigLIP or CLIP as the recipe's encoder."
            )
        return tokens[:, -rows * columns :]  # class and register tokens come first


def read_mean_std(folder: Path) -> tuple[Sequence[float], Sequence[float]]:
    """Reads what pictures are normalised by: the folder's preprocessor_config.json,
    or ImageNet's where there is none."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return IMAGENET_MEAN_STD
    try:
        config = json.loads(read_regular_text(path, MAX_CONFIG))
        mean, std = ([float(value) for value in config[name]] for name in ("image_mean", "image_std"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return IMAGENET_MEAN_STD
    return (mean, std) if len(mean) == len(std) == 3 and all(std) else IMAGENET_MEAN_STD


@torch.no_grad()
def compute_features(
    host: Host, dataset: MemoryDataset, encoders: Encoders, encoder: FeatureEncoder | None = None
) -> Tensor:
    """Computes every target's features (count, cells + 1, channels); without an encoder those of the VAE."""
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
    """Loads or computes features; those of another encoder than the VAE are kept in the run's folder."""
    if not encoder:
        return compute_features(host, dataset, encoders)
    depends = "\n".join((encoder, *dataset.samples.ids))
    path = folder / f"{dataset.task}-{hashlib.blake2b(depends.encode(), digest_size=8).hexdigest()}.safetensors"
    if not path.exists():
        network = FeatureEncoder(Path(encoder)).to(host.device)
        write_safetensors(path, {"features": compute_features(host, dataset, encoders, network)}, {})
    return SafeFile(path)["features"]
