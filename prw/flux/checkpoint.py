"""FLUX files into our FLUX: family and shape are read off the weights, which are memory-mapped."""

import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..files.errors import FileError
from ..files.lazy_tensors import Renamed
from ..files.safe_file import FLOATS, SafeFile
from .families import FAMILIES, Family, Flux
from .shapes import count_blocks

PREFIX = "model.diffusion_model."
MAX_BLOCKS = 1000
"""Of a kind."""


def load_flux(path: str | os.PathLike, dtype: torch.dtype | None = None, device: str = "cpu") -> Flux:
    """Loads a frozen FLUX from a bf16, fp16, fp32 or plain fp8 file; `dtype` None keeps the file's."""
    file = SafeFile(path)
    return build_flux(file, file.path.name, dtype, device)


def build_flux(weights: Mapping[str, Tensor], name: str, dtype: torch.dtype | None = None, device: str = "cpu") -> Flux:
    """Builds the FLUX that these weights belong to; `name` stands in what is said of them."""
    tensors = dict(name_weights(weights))
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    family = find_family(shapes, name)
    if family.embedded is None:
        raise FileError(f"{name} is a {family.label}, expected {list_embedded()}: load {family.label} in ComfyUI.")
    check_read(family, family.embedded.read, shapes, name)
    check_block_count(shapes, name)
    try:
        params = family.embedded.read_params(shapes)
    except ValueError as error:
        raise FileError(f"{name} cannot be a {family.label} ({error}): download it again.") from None
    with torch.device("meta"):
        flux = family.embedded.model(params)
    check_tensors(family, tensors, flux.state_dict(), name)
    flux.load_state_dict({key: t.to(device, dtype) for key, t in tensors.items()}, assign=True)
    return flux.eval().requires_grad_(False)


def name_weights(weights: Mapping[str, Tensor]) -> Renamed:
    """Gives the weights under the public names: without a prefix, and with RMS norms' scales,
    which the host saves as "weight"."""
    prefix = PREFIX if any(key.startswith(PREFIX) for key in weights) else ""
    full_keys = {key.removeprefix(prefix): key for key in weights if key.startswith(prefix)}
    return Renamed(weights, {key.replace("_norm.weight", "_norm.scale"): full for key, full in full_keys.items()})


def find_family(shapes: Mapping[str, tuple[int, ...]], name: str) -> Family:
    """Finds the family whose marks the weights have."""
    for family in FAMILIES.values():
        if all(mark in shapes for mark in family.marks):
            return family
    kind = "a diffusers file" if any("transformer_blocks" in key for key in shapes) else "another model"
    raise FileError(
        f"{name} looks like {kind}, expected {list_embedded()} in Black Forest Labs' layout (double_blocks, single_blocks): "
        f"use the single-file version of the weights."
    )


def list_embedded() -> str:
    """Names the families that have a model of our own."""
    return " or ".join(family.label for family in FAMILIES.values() if family.embedded is not None)


def check_read(family: Family, read: Sequence[str], shapes: Mapping[str, tuple[int, ...]], name: str) -> None:
    """Raises where a matrix that tells the shape is missing or none."""
    for key in read:
        if len(shapes.get(key, ())) != 2 or min(shapes[key]) < 1:
            raise FileError(f"{name} lacks a whole {key}, expected a whole {family.label} file: download it again.")


def check_block_count(shapes: Mapping[str, tuple[int, ...]], name: str) -> None:
    """Raises for more blocks than any FLUX has, before that many are built."""
    for kind in ("double_blocks", "single_blocks"):
        if (count := count_blocks(shapes, kind)) > MAX_BLOCKS:
            raise FileError(f"{name} names {count} {kind}, expected {MAX_BLOCKS} at most: download it again.")


def check_tensors(family: Family, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str) -> None:
    """Raises where tensors are missing, unknown, of another shape or of a type that cannot be computed with."""
    if missing := sorted(expected.keys() - tensors.keys()):
        raise FileError(
            f"{name} lacks {missing[0]} ({len(missing)} tensors in all), expected a whole {family.label} file."
        )
    if extra := sorted(tensors.keys() - expected.keys()):
        raise FileError(
            f"{name} holds {extra[0]} ({len(extra)} tensors in all) that {family.label} has no place for: load it in "
            f"ComfyUI, or use a bf16, fp16, fp32 or plain fp8 file (no scaled fp8, GGUF or NF4)."
        )
    for key, like in expected.items():
        if tensors[key].shape != like.shape:
            shape, wanted = tuple(tensors[key].shape), tuple(like.shape)
            raise FileError(f"{name}: {key} has shape {shape}, expected {wanted}: it is no whole {family.label} file.")
    for key, tensor in tensors.items():
        if tensor.dtype not in FLOATS.values():
            raise FileError(f"{name}: {key} is {tensor.dtype}, expected bf16, fp16, fp32 or fp8: use another file.")
