"""The built-in world's models as files: FLUX and VAE in the public layouts, the text encoder, a bank."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...prw.files.safe_file import SafeFile
from ...prw.files.safetensors_writer import write_safetensors
from ...prw.flux.checkpoint import load_flux
from ...prw.flux.flux1 import Flux
from .encoders import ToyEncoders
from .text import TextEncoder
from .vae import ToyVAE

SHIPPED = Path(__file__).parent / "weights"
FLUX, VAE, TEXT, BANK = "flux.safetensors", "vae.safetensors", "text.safetensors", "bank.safetensors"
NAME = "CoLoGen toy FLUX"
"""The base's name in banks that are trained on it."""
TOY_NAME = "toy world (built in)"
"""How ComfyUI's users choose it where a file is."""


class ToyModels(NamedTuple):
    flux: Flux
    encoders: ToyEncoders


def open_toy_models(folder: Path = SHIPPED, device: str = "cpu") -> ToyModels:
    flux = load_flux(folder / FLUX, torch.float32, device)
    assert isinstance(flux, Flux)
    return ToyModels(flux, open_toy_encoders(folder, device))


def open_toy_encoders(folder: Path = SHIPPED, device: str = "cpu") -> ToyEncoders:
    text, vae = TextEncoder(), ToyVAE()
    for module, name in ((text, TEXT), (vae, VAE)):
        file = SafeFile(folder / name)
        module.load_state_dict({key: file[key].float() for key in file})
        module.eval().requires_grad_(False).to(device)
    return ToyEncoders(text, vae)


def save_module(module: nn.Module, path: Path) -> None:
    save_weights(module.state_dict(), path)


def save_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Saves in half precision, whole or not at all."""
    write_safetensors(path, {name: tensor.to(torch.float16) for name, tensor in weights.items()}, {})
