"""Opens Qwen3 and FLUX.2's VAE as transformers' and diffusers' models (open_models.py)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...prw.files.errors import FileError
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

LAYERS = (9, 18, 27)
"""FLUX.2 klein reads the states after so many layers."""
QWEN3_PREFIX = "model."
QWEN3_LAYER = QWEN3_PREFIX + "layers.{}."
ROPE_THETA = 1e6
UNUSED = ("lm_head.",)
"""What some Qwen3 files hold beside the model."""
SCALE = ".weight_scale"
SCALED = (SCALE, ".input_scale", ".comfy_quant")
"""What files of scaled fp8 hold beside a weight: the first one counts."""
VAE_RENAMES = {"encoder.quant_conv.": "quant_conv.", "decoder.post_quant_conv.": "post_quant_conv."}
VAE_COUNTER = "bn.num_batches_tracked"


def open_qwen3_file(path: Path) -> SafeFile:
    sign = QWEN3_LAYER.format(LAYERS[-1] - 1) + "self_attn.q_norm.weight"
    return open_file(path, "Qwen3 (qwen_3_4b.safetensors or qwen_3_8b.safetensors)", sign)


@report_wrong_files
def open_qwen3(path: Path, device: str, dtype: torch.dtype) -> nn.Module:
    """Opens the layers of Qwen3 that are read; weights stay as the file has them and are widened when they are used."""
    from transformers import Qwen3Model
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

    file = open_qwen3_file(path)
    config = read_qwen3_config(file)
    with torch.device("meta"):
        qwen3: Any = Qwen3Model(config)
    qwen3.norm = nn.Identity()  # the states are read before it
    qwen3.rotary_emb = Qwen3RotaryEmbedding(config)
    tensors = {name.removeprefix(QWEN3_PREFIX): file[name] for name in file if is_read(name)}
    weights = {name: tensor for name, tensor in tensors.items() if not name.endswith(SCALED)}
    check_floats(weights, path)
    load_weights(qwen3, {**weights, "embed_tokens.weight": weights["embed_tokens.weight"].to(dtype)}, path)
    qwen3 = qwen3.to(device).eval().requires_grad_(False)
    widen_blocks(qwen3.layers, dtype)
    scale_layers(qwen3, {n.removesuffix(SCALE): t for n, t in tensors.items() if n.endswith(SCALE)}, path)
    return qwen3


def check_floats(weights: Mapping[str, Tensor], path: Path) -> None:
    """Raises for weights that are codes of fewer bits."""
    if name := next((name for name, tensor in weights.items() if not tensor.is_floating_point()), ""):
        raise FileError(
            f"{path.name}: {name} is {weights[name].dtype}, expected bf16, fp16, fp32 or fp8: choose a file without nvfp4 "
            f"or other codes."
        )


def is_read(name: str) -> bool:
    """Says whether a tensor of the file is one that FLUX.2's text comes from."""
    parts = name.split(".")
    is_later = name.startswith("model.layers.") and parts[2].isdecimal() and int(parts[2]) >= LAYERS[-1]
    return not is_later and name != "model.norm.weight" and not name.startswith(UNUSED)


def read_qwen3_config(file: SafeFile) -> Any:
    """Reads a Qwen3Config off the weights' shapes, of as many layers as are read."""
    from transformers import Qwen3Config

    shape, layer = {name: file.shape(name) for name in file}, QWEN3_LAYER.format(0)
    head = shape[layer + "self_attn.q_norm.weight"][0]
    rows = {name: shape[f"{layer}self_attn.{name}_proj.weight"][0] for name in "qk"}
    return Qwen3Config(
        vocab_size=shape[QWEN3_PREFIX + "embed_tokens.weight"][0],
        hidden_size=shape[QWEN3_PREFIX + "embed_tokens.weight"][1],
        intermediate_size=shape[layer + "mlp.gate_proj.weight"][0],
        num_hidden_layers=LAYERS[-1],
        num_attention_heads=rows["q"] // head,
        num_key_value_heads=rows["k"] // head,
        head_dim=head,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        use_cache=False,
    )


@report_wrong_files
def open_flux2_vae(path: Path, device: str, dtype: torch.dtype) -> nn.Module:
    """Opens FLUX.2's VAE; its decoder may be narrower than its encoder."""
    from diffusers import AutoencoderKLFlux2

    file = open_file(path, "FLUX.2's VAE (flux2-vae.safetensors)", "bn.running_mean")
    config = read_vae_config(file)
    first, widest = config["block_out_channels"][0], config["block_out_channels"][-1]
    narrow = first * file.shape("decoder.conv_in.weight")[0] // widest
    levels = tuple(width * narrow // first for width in config["block_out_channels"])
    config |= dict(decoder_block_out_channels=levels, use_quant_conv=True, use_post_quant_conv=True)
    weights = {VAE_COUNTER: torch.zeros((), dtype=torch.long)}
    for name in file:
        old = next((start for start in VAE_RENAMES if name.startswith(start)), "")
        weights[VAE_RENAMES.get(old, "") + name.removeprefix(old)] = (
            file[name] if name == VAE_COUNTER else file[name].to(dtype)
        )
    return load_vae(AutoencoderKLFlux2, config, weights, path).to(device)
