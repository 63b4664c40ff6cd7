"""Real FLUX.1 files into our FLUX: the shape is read off the weights, which are memory-mapped."""

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from ..files.errors import FileError
from ..files.safe_file import SafeFile
from .flux1 import Flux, FluxParams

PREFIX = "model.diffusion_model."
AXES = (16, 56, 56)
READ = [f"{key}.weight" for key in ("img_in", "txt_in", "final_layer.linear", "vector_in.in_layer")]
READ.append("double_blocks.0.img_mlp.0.weight")
DTYPES = {torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2}


def load_flux(path: str | os.PathLike, dtype: torch.dtype | None = None, device: str = "cpu") -> Flux:
    """A frozen FLUX from a bf16, fp16, fp32 or plain fp8 file; `dtype` None keeps the file's."""
    file = SafeFile(path)
    return flux_from(file, file.path.name, dtype, device)


def flux_from(weights: Mapping[str, Tensor], name: str, dtype: torch.dtype | None = None, device: str = "cpu") -> Flux:
    prefix = PREFIX if any(key.startswith(PREFIX) for key in weights) else ""
    found = {key.removeprefix(prefix): key for key in weights if key.startswith(prefix)}
    with torch.device("meta"):
        flux = Flux(params_of({key: tuple(weights[full].shape) for key, full in found.items()}, name))
    # the host saves the scales of its RMS norms as "weight"
    found = {key.replace("_norm.weight", "_norm.scale"): full for key, full in found.items()}
    expected = flux.state_dict().keys()
    if missing := sorted(expected - found.keys()):
        raise FileError(f"{name} lacks {missing[0]} ({len(missing)} tensors in all), expected a whole FLUX.1 file.")
    if extra := sorted(found.keys() - expected):
        raise FileError(
            f"{name} holds {extra[0]} ({len(extra)} tensors in all) that FLUX.1 has no place for: load it in "
            f"ComfyUI, or use a bf16, fp16, fp32 or plain fp8 file (no scaled fp8, GGUF or NF4)."
        )
    tensors = {key: weights[full] for key, full in found.items()}
    for key, like in flux.state_dict().items():
        if tensors[key].shape != like.shape:
            shape, wanted = tuple(tensors[key].shape), tuple(like.shape)
            raise FileError(f"{name}: {key} has shape {shape}, expected {wanted}: it is no whole FLUX.1 file.")
    for key, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise FileError(f"{name}: {key} is {tensor.dtype}, expected bf16, fp16, fp32 or fp8: use another file.")
    flux.load_state_dict({key: t.to(device, dtype) for key, t in tensors.items()}, assign=True)
    return flux.eval().requires_grad_(False)


def params_of(shapes: Mapping[str, tuple[int, ...]], name: str) -> FluxParams:
    """The shape of the FLUX that these weights belong to."""
    if "double_blocks.0.img_attn.qkv.weight" not in shapes or "vector_in.in_layer.weight" not in shapes:
        kind = "a diffusers file" if any("transformer_blocks" in key for key in shapes) else "another model"
        raise FileError(
            f"{name} looks like {kind}, expected FLUX.1 in Black Forest Labs' layout (double_blocks, single_blocks): "
            f"use the single-file version of the weights."
        )
    for key in READ:
        if len(shapes.get(key, ())) != 2 or min(shapes[key]) < 1:
            raise FileError(f"{name} lacks a whole {key}, expected a whole FLUX.1 file: download it again.")
    hidden, in_channels = shapes["img_in.weight"]
    return FluxParams(
        in_channels=in_channels,
        out_channels=shapes["final_layer.linear.weight"][0],
        vec_in_dim=shapes["vector_in.in_layer.weight"][1],
        context_in_dim=shapes["txt_in.weight"][1],
        hidden_size=hidden,
        mlp_ratio=shapes["double_blocks.0.img_mlp.0.weight"][0] / hidden,
        num_heads=hidden // sum(AXES),
        depth=_count(shapes, "double_blocks"),
        depth_single_blocks=_count(shapes, "single_blocks"),
        axes_dim=AXES,
        guidance_embed="guidance_in.in_layer.weight" in shapes,
    )


def _count(shapes: Mapping[str, tuple[int, ...]], kind: str) -> int:
    return len({key.split(".")[1] for key in shapes if key.startswith(f"{kind}.")})
