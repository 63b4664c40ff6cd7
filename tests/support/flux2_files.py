"""Small random files of FLUX.2's encoders, in the layouts that people have: Qwen3 and the VAE of 32 channels."""

import torch
from safetensors.torch import save_file

QWEN3 = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=28, num_attention_heads=2, num_key_value_heads=1)
TEXT_WIDTH = 3 * QWEN3["hidden_size"]
WORDS, HEAD = 151936, 128
AE = dict(z_channels=32, resolution=64, in_channels=3, out_ch=3, ch=32, ch_mult=(1, 2, 4, 4))
AE |= dict(num_res_blocks=2, attn_resolutions=[], dropout=0.0, double_z=True)


def save_flux2_files(folder, seed=3, decoder=32):
    """qwen3.safetensors and vae.safetensors in a folder; `decoder`: the decoder's first width."""
    generator = torch.Generator().manual_seed(seed)
    for name, shapes in (("qwen3", list_qwen3()), ("vae", list_vae(decoder))):
        save_file({key: draw(key, shape, generator) for key, shape in shapes.items()}, folder / f"{name}.safetensors")
    return folder


def draw(name, shape, generator):
    size = 0.1 if len(shape) < 2 else 1.0 if "embed" in name else torch.Size(shape[1:]).numel() ** -0.5
    drawn = torch.randn(shape, generator=generator) * size
    if name.endswith("running_var"):
        return 0.5 + drawn.abs()
    return drawn + ("norm" in name and len(shape) == 1 and name.endswith("weight"))


def list_qwen3():
    width, inner = QWEN3["hidden_size"], QWEN3["intermediate_size"]
    q, kv = QWEN3["num_attention_heads"] * HEAD, QWEN3["num_key_value_heads"] * HEAD
    layer = {f"self_attn.{name}_proj": (rows, width) for name, rows in (("q", q), ("k", kv), ("v", kv))}
    layer |= {"self_attn.o_proj": (width, q), "self_attn.q_norm": (HEAD,), "self_attn.k_norm": (HEAD,)}
    layer |= {"mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner)}
    layer |= {"input_layernorm": (width,), "post_attention_layernorm": (width,)}
    shapes = {"model.embed_tokens.weight": (WORDS, width), "model.norm.weight": (width,)}
    for number in range(QWEN3["num_hidden_layers"]):
        shapes |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    return shapes


def list_vae(decoder):
    """Black Forest Labs' names: levels of two or three resnets, each at half the size of the one before."""
    shapes = {"bn.running_mean": (128,), "bn.running_var": (128,)}
    widths = [AE["ch"] * level for level in AE["ch_mult"]]
    add_conv(shapes, "encoder.conv_in", widths[0], 3, 3)
    last = widths[0]
    for level, width in enumerate(widths):
        for block in range(2):
            add_resnet(shapes, f"encoder.down.{level}.block.{block}", last, width)
            last = width
        if level < 3:
            add_conv(shapes, f"encoder.down.{level}.downsample.conv", width, width, 3)
    add_ends(shapes, "encoder", last, 2 * AE["z_channels"])
    widths = [decoder * level for level in AE["ch_mult"]]
    add_conv(shapes, "decoder.conv_in", widths[-1], AE["z_channels"], 3)
    last = widths[-1]
    for level in reversed(range(4)):
        for block in range(3):
            add_resnet(shapes, f"decoder.up.{level}.block.{block}", last, widths[level])
            last = widths[level]
        if level:
            add_conv(shapes, f"decoder.up.{level}.upsample.conv", last, last, 3)
    add_ends(shapes, "decoder", widths[0], 3, middle=widths[-1])
    add_conv(shapes, "encoder.quant_conv", 64, 64, 1)
    add_conv(shapes, "decoder.post_quant_conv", 32, 32, 1)
    return shapes


def add_conv(shapes, name, out, width, side):
    shapes |= {f"{name}.weight": (out, width, side, side), f"{name}.bias": (out,)}


def add_norm(shapes, name, width):
    shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def add_resnet(shapes, name, before, after):
    add_norm(shapes, f"{name}.norm1", before), add_conv(shapes, f"{name}.conv1", after, before, 3)
    add_norm(shapes, f"{name}.norm2", after), add_conv(shapes, f"{name}.conv2", after, after, 3)
    if before != after:
        add_conv(shapes, f"{name}.nin_shortcut", after, before, 1)


def add_ends(shapes, side, last, out, middle=0):
    """The middle with its attention, and the last norm and convolution."""
    middle = middle or last
    add_resnet(shapes, f"{side}.mid.block_1", middle, middle), add_resnet(shapes, f"{side}.mid.block_2", middle, middle)
    add_norm(shapes, f"{side}.mid.attn_1.norm", middle)
    for name in ("q", "k", "v", "proj_out"):
        add_conv(shapes, f"{side}.mid.attn_1.{name}", middle, middle, 1)
    add_norm(shapes, f"{side}.norm_out", last), add_conv(shapes, f"{side}.conv_out", out, last, 3)
