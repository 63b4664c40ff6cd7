"""Opens single files, as ComfyUI's users have them, as transformers' and diffusers' models: what families share of it.

Shapes are read off the weights; nothing is fetched, and no weight is made up.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...prw.files.errors import FileError
from ...prw.files.safe_file import SafeFile
from ...prw.files.validate import shorten, shorten_error

OpenModel = Callable[[Path, str, torch.dtype], nn.Module]
"""Opens a model's file on a device, to compute in a type."""
BLOCK_TYPES = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}
LEVELS = (1, 2, 4, 4)
"""Widths of the VAE's levels, in those of the first."""
VAE_KEPT = ("bn.",)
"""Tensors of a VAE whose names are the same in both layouts."""


def open_file(path: Path, wanted: str, sign: str) -> SafeFile:
    """Opens a file, if it holds the tensor `sign`."""
    if not path.is_file():
        raise FileError(f"There is no file {path}, expected {wanted}: set its place in the table [encoders].")
    file = SafeFile(path)
    if sign not in file:
        raise FileError(
            f"{path.name} holds {shorten(next(iter(file), 'nothing'))}, expected {wanted}: choose that file."
        )
    return file


def report_wrong_files(open_model: OpenModel) -> OpenModel:
    """Turns what a library says of shapes that fit no model into a sentence."""

    @wraps(open_model)
    def open_reported(path: Path, device: str, dtype: torch.dtype) -> nn.Module:
        try:
            return open_model(path, device, dtype)
        except (FileError, ImportError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever foreign shapes can provoke
            raise FileError(
                f"{path.name} is no whole plain file of this model ({shorten_error(error)}): download it again, or choose "
                f"another."
            ) from None

    return open_reported


def load_weights(model: nn.Module, weights: Mapping[str, Tensor | None], path: Path) -> None:
    """Loads all of a model's weights, and no others, from the file at `path`."""
    expected = model.state_dict()
    for names, fault in ((expected.keys() - weights.keys(), "lacks"), (weights.keys() - expected.keys(), "also holds")):
        if names:
            raise FileError(
                f"{path.name} {fault} {shorten(min(names))} ({len(names)} tensors in all), expected a whole plain file of "
                f"this model (no GGUF): download it again, or choose another."
            )
    for name, like in expected.items():
        weight = weights[name]
        if weight is None or weight.shape != like.shape:
            shape = "nothing" if weight is None else tuple(weight.shape)
            raise FileError(f"{path.name}: {name} is {shape}, expected {tuple(like.shape)}: choose another file.")
    model.load_state_dict(weights, assign=True)


def widen_blocks(blocks: Iterable[nn.Module], dtype: torch.dtype) -> None:
    """Has blocks keep their weights as they are stored, and widen them to `dtype` while they compute."""
    for block in blocks:  # by block: transformers' layers look at their own weights' type
        stored = [(parameter, parameter.data) for parameter in block.parameters()]
        block.register_forward_pre_hook(partial(_widen, stored, dtype))
        block.register_forward_hook(partial(_restore, stored))


def _widen(stored: list[tuple[nn.Parameter, Tensor]], dtype: torch.dtype, *_: Any) -> None:
    for parameter, data in stored:
        parameter.data = data.to(dtype)


def _restore(stored: list[tuple[nn.Parameter, Tensor]], *_: Any) -> None:
    for parameter, data in stored:
        parameter.data = data


def scale_layers(model: nn.Module, scales: Mapping[str, Tensor], path: Path) -> None:
    """Has layers scale what they give by the numbers that the file at `path` has beside their weights."""
    device, layers = next(model.parameters()).device, dict(model.named_modules())
    for layer, scale in scales.items():
        if layer not in layers or scale.numel() != 1:
            raise FileError(
                f"{path.name}: the scale of {layer} is {tuple(scale.shape)}, expected one number for a layer: choose "
                f"another file."
            )
        layers[layer].register_forward_hook(partial(_apply_scale, scale.to(device, torch.float32)))


def _apply_scale(scale: Tensor, layer: nn.Module, args: tuple, out: Tensor) -> Tensor:
    """Scales a layer's output, as its forward hook."""
    return out * scale.to(out.dtype)


def read_vae_config(file: SafeFile) -> dict[str, Any]:
    """Reads off the weights' shapes what diffusers' autoencoders of FLUX are made with."""
    first, latents = file.shape("encoder.conv_in.weight")[0], file.shape("encoder.conv_out.weight")[0] // 2
    return dict(
        {key: (kind,) * len(LEVELS) for key, kind in BLOCK_TYPES.items()},
        block_out_channels=tuple(first * level for level in LEVELS),
        layers_per_block=2,
        latent_channels=latents,
    )


def load_vae(kind: Any, config: dict[str, Any], weights: dict[str, Tensor], path: Path) -> nn.Module:
    """Loads an autoencoder of diffusers' class `kind` from weights in Black Forest Labs' layout, or in diffusers' own."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    with torch.device("meta"):
        vae: Any = kind(**config)
    if "decoder.up_blocks.0.resnets.0.norm1.weight" not in weights:
        kept = {name: tensor for name, tensor in weights.items() if name.startswith(VAE_KEPT)}
        weights = convert_ldm_vae_checkpoint(weights, config) | kept
    load_weights(vae, weights, path)
    return vae.eval().requires_grad_(False)
