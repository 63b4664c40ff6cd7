"""Opens FLUX.1's T5, CLIP and VAE as transformers' and diffusers' models (open_models.py)."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...prw.files.safe_file import SafeFile
from .open_models import (
    load_vae,
    load_weights,
    open_file,
    read_vae_config,
    report_wrong_files,
    scale_layers,
    widen_blocks,
)

END = 49407
"""CLIP's token after the last word."""
T5_BLOCK = "encoder.block.0.layer.{}."
EMBEDDING, SCALE = "encoder.embed_tokens.weight", ".scale_weight"
IGNORED = (EMBEDDING, SCALE, "scaled_fp8", ".scale_input")
"""What some T5 files hold twice, and what those of scaled fp8 hold beside the weights."""


@report_wrong_files
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


@report_wrong_files
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
    with torch.device("meta"):
        clip = CLIPTextModelWithProjection(config).text_model
    names = [name for name in file if name.startswith(prefix) and not name.endswith("position_ids")]
    load_weights(clip, {name.removeprefix(prefix): file[name].to(dtype) for name in names}, path)
    positions = torch.arange(config.max_position_embeddings)[None]  # stands in no file
    clip.embeddings.register_buffer("position_ids", positions, persistent=False)
    return clip.to(device).eval().requires_grad_(False)  # pyrefly: ignore[bad-argument-type]


@report_wrong_files
def open_vae(path: Path, device: str, dtype: torch.dtype) -> nn.Module:
    from diffusers import AutoencoderKL

    file = open_file(path, "FLUX.1's VAE (ae.safetensors)", "encoder.conv_in.weight")
    config = dict(read_vae_config(file), use_quant_conv=False, use_post_quant_conv=False)
    return load_vae(AutoencoderKL, config, {name: file[name].to(dtype) for name in file}, path).to(device)
