"""The built-in world's models as files: FLUX and VAE in the public layouts, the text encoder, a bank."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...prw.files.errors import FileError
from ...prw.files.safe_file import SafeFile
from ...prw.files.safetensors_writer import write_safetensors
from ...prw.files.validate import shorten
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
        load_own_weights(module, SafeFile(folder / name))
        module.eval().requires_grad_(False).to(device)
    return ToyEncoders(text, vae)


def load_own_weights(module: nn.Module, file: SafeFile) -> None:
    """Loads all of a module's weights, and no others."""
    expected = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    for key in sorted(expected.keys() ^ file.keys()) or [key for key in file if file.shape(key) != expected[key]]:
        raise FileError(
            f"{file.name} is no whole file of the toy world's {type(module).__name__} (see {shorten(key)}), expected all of its "
            f"weights: name a folder that holds {TEXT}, {VAE} and {FLUX} of one toy world."
        )
    module.load_state_dict({key: file[key].float() for key in file})


def save_module(module: nn.Module, path: Path) -> None:
    save_weights(module.state_dict(), path)


def save_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Saves in half precision, whole or not at all."""
    write_safetensors(path, {name: tensor.to(torch.float16) for name, tensor in weights.items()}, {})
