"""A world's models as files: FLUX and VAE in the public layouts, the text encoder, a bank.

A FLUX too large for one file lies in several, as elsewhere: flux-00001-of-00003.safetensors.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...prw.embedded_host import EmbeddedHost
from ...prw.files.errors import FileError
from ...prw.files.safe_file import SafeFile
from ...prw.files.safetensors_writer import write_safetensors
from ...prw.files.validate import shorten
from ...prw.flux.checkpoint import build_flux
from ...prw.flux.flux1 import Flux
from .encoders import SmallEncoders, hash_weights
from .text import TextEncoder
from .vae import SmallVAE
from .world import World

FLUX, VAE, TEXT, BANK = "flux.safetensors", "vae.safetensors", "text.safetensors", "bank.safetensors"


class WorldModels(NamedTuple):
    """What a folder of a world holds, its bank aside."""

    flux: Flux
    encoders: SmallEncoders

    def make_host(self) -> EmbeddedHost:
        return EmbeddedHost(self.flux, next(self.flux.parameters()).dtype)

    def identity(self) -> str:
        """Gives a hash of all weights."""
        return f"{hash_weights(self.flux.state_dict().items())}-{self.encoders.identity()}"


def open_models(world: World, folder: Path | None = None, device: str = "cpu") -> WorldModels:
    """Opens the models of a folder, or those that ship."""
    folder = folder or world.folder
    flux = build_flux(read_weights(folder / FLUX), FLUX, torch.float32, device)
    if not isinstance(flux, Flux) or flux.params.context_in_dim != world.language.width:
        raise FileError(
            f"{folder / FLUX} is no FLUX that reads the {world.name} world's words, expected one: {name_files(world)}"
        )
    return WorldModels(flux, open_encoders(world, folder, device))


def open_encoders(world: World, folder: Path | None = None, device: str = "cpu") -> SmallEncoders:
    folder = folder or world.folder
    text, vae = TextEncoder(world.language), SmallVAE()
    for module, name in ((text, TEXT), (vae, VAE)):
        load_own_weights(module, SafeFile(folder / name), world)
        module.eval().requires_grad_(False).to(device)
    return SmallEncoders(text, vae)


def load_own_weights(module: nn.Module, file: SafeFile, world: World) -> None:
    """Loads all of a module's weights, and no others."""
    expected = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    wrong = sorted(expected.keys() ^ file.keys()) or [key for key in file if file.shape(key) != expected[key]]
    if wrong:
        raise FileError(
            f"{file.name} is no whole file of the {world.name} world's {type(module).__name__} (see {shorten(wrong[0])}), expected "
            f"all of its weights: {name_files(world)}"
        )
    module.load_state_dict({key: file[key].float() for key in file})


def name_files(world: World) -> str:
    return f"name a folder that holds {TEXT}, {VAE} and {FLUX} of one {world.name} world."


def save_module(module: nn.Module, path: Path) -> None:
    save_weights(module.state_dict(), path)


def save_weights(
    weights: Mapping[str, Tensor], path: Path, dtype: torch.dtype = torch.float16, max_shard_size: int = 0
) -> None:
    """Saves in half precision, in files of at most `max_shard_size` bytes; each is there whole or not at all, the last one last."""
    parts: list[dict[str, Tensor]] = [{}]
    for name, tensor in sorted(weights.items()):
        small = tensor.detach().to("cpu", dtype)
        size = sum(part.nbytes for part in parts[-1].values())
        if max_shard_size and size and size + small.nbytes > max_shard_size:
            parts.append({})
        parts[-1][name] = small
    for number, part in enumerate(parts, 1):
        write_safetensors(path if len(parts) == 1 else name_part(path, number, len(parts)), part, {})


def name_part(path: Path, number: int, count: int) -> Path:
    return path.with_stem(f"{path.stem}-{number:05}-of-{count:05}")


def find_parts(path: Path) -> list[Path]:
    """Lists the files in which weights lie, in their order; none if one is missing."""
    if path.exists():
        return [path]
    last = re.compile(rf"{re.escape(path.stem)}-(\d{{5}})-of-\1{re.escape(path.suffix)}")
    for found in path.parent.glob(f"{path.stem}-*{path.suffix}"):
        if match := last.fullmatch(found.name):
            count = int(match[1])
            parts = [name_part(path, number, count) for number in range(1, count + 1)]
            return parts if all(part.exists() for part in parts) else []
    return []


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads weights, from one file or from all of their parts."""
    files = [SafeFile(part) for part in find_parts(path) or [path]]
    return {key: file[key] for file in files for key in file}
