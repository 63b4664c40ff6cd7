"""The names that a DiffSynth Diffusion Template gives the weights of a FLUX.2, and its file under the public ones.

A template is a second FLUX.2 in one file. Its tensors are the public layout's under other names; the last layer's scale
and shift alone have changed places.
"""

import re
from collections.abc import Collection, Iterable

import torch
from torch import Tensor

from ..files.errors import FileError
from ..files.lazy_tensors import Renamed
from ..files.safe_file import SafeFile
from ..files.validate import shorten

MARKS = ("txt_embedder.weight", "transformer_blocks.0.img_to_qkv.weight")
SWAPPED = "final_layer.adaLN_modulation.1.weight"
"""Its halves are shift and scale, a template's scale and shift."""
LAYERS = {
    "img_in": "img_embedder",
    "txt_in": "txt_embedder",
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.0",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.2",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "final_layer.linear": "proj_out",
}
"""Public name -> a template's, outside the blocks; so the next two, within a block."""
DOUBLE_LAYERS = {
    f"{side}_{ours}": f"{side}_{theirs}"
    for side in ("img", "txt")
    for ours, theirs in (
        ("attn.qkv", "to_qkv"),
        ("attn.norm.query_norm", "norm_q"),
        ("attn.norm.key_norm", "norm_k"),
        ("attn.proj", "to_out"),
        ("mlp.0", "ff.linear_in"),
        ("mlp.2", "ff.linear_out"),
    )
}
SINGLE_LAYERS = {
    "linear1": "to_qkv_mlp_proj",
    "linear2": "to_out",
    "norm.query_norm": "norm_q",
    "norm.key_norm": "norm_k",
}
BLOCKS = (
    ("double_blocks", "transformer_blocks", DOUBLE_LAYERS),
    ("single_blocks", "single_transformer_blocks", SINGLE_LAYERS),
)


def is_template(names: Iterable[str]) -> bool:
    """Says whether a file with these tensor names is a template that is a whole model."""
    return set(MARKS) <= set(names)


def rename_template(file: SafeFile) -> Renamed:
    """Gives a template's tensors, memory-mapped, under the names of a public FLUX.2 file."""
    names = list_names(file)
    if missing := sorted(set(names.values()) - file.keys()):
        raise FileError(f"{file.name} lacks {missing[0]}, expected a whole template: download it again.")
    if extra := sorted(file.keys() - set(names.values())):
        raise FileError(
            f"{file.name} holds {shorten(extra[0])}, which no template that is a whole FLUX.2 has: it is of a kind that "
            f"cannot be used yet."
        )
    return Renamed(file, names, _swap_halves)


def list_names(names: Collection[str]) -> dict[str, str]:
    """Lists public name -> a template's, for as many blocks as these names of its tensors count."""
    layers = dict(LAYERS)
    for ours, theirs, in_block in BLOCKS:
        counted = (re.match(rf"{theirs}\.([0-9]{{1,3}})\.", name) for name in names)
        for i in range(len({match[1] for match in counted if match})):
            layers |= {f"{ours}.{i}.{our}": f"{theirs}.{i}.{their}" for our, their in in_block.items()}
    # the public files call the weight of an RMS norm its scale
    return {
        ours + (".scale" if ours.endswith("_norm") else ".weight"): f"{theirs}.weight"
        for ours, theirs in layers.items()
    }


def _swap_halves(name: str, tensor: Tensor) -> Tensor:
    return torch.cat(tensor.chunk(2)[::-1]) if name == SWAPPED else tensor
