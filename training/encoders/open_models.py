"""Opens T5, CLIP and FLUX.1's VAE as transformers' and diffusers' models, from the single files that ComfyUI's users have.

Shapes are read off the weights; nothing is fetched, and no weight is made up.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...prw.files.errors import FileError
from ...prw.files.safe_file import SafeFile
from ...prw.files.validate import shorten

END = 49407
"""CLIP's token after the last word."""
T5_BLOCK = "encoder.block.0.layer.{}."
EMBEDDING, SCALE = "encoder.embed_tokens.weight", ".scale_weight"
IGNORED = (EMBEDDING, SCALE, "scaled_fp8", ".scale_input")
"""What some T5 files hold twice, and what those of scaled fp8 hold beside the weights."""
BLOCK_TYPES = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}
LEVELS = (1, 2, 4, 4)
"""Widths of the VAE's levels, in those of the first."""
VAE_KEPT = ("bn.",)
"""Tensors of a VAE whose names are the same in both layouts."""


def open_t5(path: Path, device: str, dtype: torch.dtype) -> nn.Module:
    """Opens T5; weights stay as the file has them, fp8 too, and are widened block by block when they are used.

    Those of scaled fp8 stay unscaled: what a layer makes of them is scaled.
    """
    from transformers import T5EncoderModel

    file = open_t5_file(path)
    with torch.device("meta"):
        t5 = T5EncoderModel(read_t5_config(file))
    weights = {name: file[name] for name in file if not name.endswith(IGNORED)}
    outside = {name: t.to(dtype).nan_to_num() for name, t in weights.items() if not name.startswith("encoder.block.")}
    load_weights(t5, {**weights, **outside, EMBEDDING: outside.get("shared.weight")}, path)
    t5 = t5.to(device).eval().requires_grad_(False)  # pyrefly: ignore[bad-argument-type]
    widen_blocks(t5.encoder.block, dtype)
    scale_layers(t5, {name.removesuffix(SCALE): file[name] for name in file if name.endswith(SCALE)}, path)
    return t5


def open_t5_file(path: Path) -> SafeFile:
    sign = T5_BLOCK.format(0) + "SelfAttention.q.weight"
    return open_file(path, "T5-XXL's encoder (t5xxl_fp16.safetensors)", sign)


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
        layers[layer].register_forward_hook(partial(apply_scale, scale.to(device, torch.float32)))


def read_t5_config(file: SafeFile) -> Any:
    """Reads a T5Config off the weights' shapes."""
    from transformers import T5Config

    shape = {name: file.shape(name) for name in file}
    attention, wide = T5_BLOCK.format(0) + "SelfAttention.", T5_BLOCK.format(1) + "DenseReluDense.wi_0.weight"
    bias = shape.get(attention + "relative_attention_bias.weight", (32, 1))
    return T5Config(
        vocab_size=shape.get("shared.weight", (1, 1))[0],
        d_model=shape[attention + "q.weight"][1],
        d_kv=shape[attention + "q.weight"][0] // bias[1],
        d_ff=shape.get(wide, (1, 1))[0],
        num_layers=len({name.split(".")[2] for name in file if name.startswith("encoder.block.")}),
        num_heads=bias[1],
        relative_attention_num_buckets=bias[0],
        feed_forward_proj="gated-gelu",
    )


def apply_scale(scale: Tensor, layer: nn.Module, args: tuple, out: Tensor) -> Tensor:
    """Scales a layer's output, as its forward hook."""
    return out * scale.to(out.dtype)


def open_clip(path: Path, device: str, dtype: torch.dtype) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    prefix = "text_model."
    file = open_file(path, "CLIP-L's text encoder (clip_l.safetensors)", prefix + "encoder.layers.0.mlp.fc1.weight")
    inner, width = file.shape(prefix + "encoder.layers.0.mlp.fc1.weight")
    layers = len({name.split(".")[3] for name in file if name.startswith(prefix + "encoder.layers.")})
    config = CLIPTextConfig(
        vocab_size=END + 1,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        eos_token_id=END,
    )
    clip = CLIPTextModelWithProjection(config).text_model
    names = [name for name in file if name.startswith(prefix) and not name.endswith("position_ids")]
    load_weights(clip, {name.removeprefix(prefix): file[name].to(dtype) for name in names}, path)
    return clip.to(device).eval().requires_grad_(False)  # pyrefly: ignore[bad-argument-type]


def open_vae(path: Path, device: str, dtype: torch.dtype) -> nn.Module:
    from diffusers import AutoencoderKL

    file = open_file(path, "FLUX.1's VAE (ae.safetensors)", "encoder.conv_in.weight")
    config = dict(read_vae_config(file), use_quant_conv=False, use_post_quant_conv=False)
    return load_vae(AutoencoderKL, config, {name: file[name].to(dtype) for name in file}, path).to(device)


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
