"""A seeded tiny FLUX.2 in the layout of a Diffusion Template's file, written by its own table."""

import torch
from safetensors.torch import save_file
from tiny_flux2 import tiny_flux2

RENAMED = (
    ("img_in.", "img_embedder."),
    ("txt_in.", "txt_embedder."),
    ("time_in.in_layer.", "time_guidance_embed.timestep_embedder.0."),
    ("time_in.out_layer.", "time_guidance_embed.timestep_embedder.2."),
    ("modulation_img.lin.", "modulation_img.linear."),
    ("modulation_txt.lin.", "modulation_txt.linear."),
    ("stream_modulation.lin.", "stream_modulation.linear."),
    ("final_layer.adaLN_modulation.1.", "norm_out.linear."),
    ("final_layer.linear.", "proj_out."),
    ("single_blocks.", "single_transformer_blocks."),
    ("double_blocks.", "transformer_blocks."),
    (".linear1.", ".to_qkv_mlp_proj."),
    (".linear2.", ".to_out."),
    ("_attn.qkv.", "_to_qkv."),
    ("_attn.proj.", "_to_out."),
    ("_mlp.0.", "_ff.linear_in."),
    ("_mlp.2.", "_ff.linear_out."),
    ("_attn.norm.query_norm.scale", "_norm_q.weight"),
    ("_attn.norm.key_norm.scale", "_norm_k.weight"),
    ("norm.query_norm.scale", "norm_q.weight"),
    ("norm.key_norm.scale", "norm_k.weight"),
)


def template_weights(weights):
    """A FLUX.2's weights as a template's file has them."""
    out = {}
    for name, tensor in weights.items():
        if name == "final_layer.adaLN_modulation.1.weight":
            shift, scale = tensor.chunk(2)
            tensor = torch.cat([scale, shift])
        for ours, theirs in RENAMED:
            name = name.replace(ours, theirs)
        out[name] = tensor.clone()
    return out


def save_template(folder, name="Template-KleinBase4B-ControlNet", seed=50, dtype=torch.float32, **changes):
    """Writes FOLDER/NAME/model.safetensors, and returns its path and its weights under the public names."""
    weights = {key: tensor.to(dtype) for key, tensor in tiny_flux2(seed, **changes).state_dict().items()}
    path = folder / name / "model.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(template_weights(weights), path)
    return path, weights
