"""The parameters of a FLUX, read off the shapes of its weights."""

from collections.abc import Mapping
from typing import Any


def check_heads(hidden_size: int, num_heads: int, axes_dim: tuple[int, ...]) -> None:
    """Checks that the heads' positions fill the model's width."""
    if hidden_size != num_heads * sum(axes_dim):
        raise ValueError(
            f"hidden_size is {hidden_size}, expected num_heads x sum(axes_dim) = {num_heads} x {sum(axes_dim)}"
        )


def read_common_params(shapes: Mapping[str, tuple[int, ...]], axes_dim: tuple[int, ...]) -> dict[str, Any]:
    """Reads the parameters that all families have off the shapes of a checkpoint's weights."""
    hidden_size, in_channels = shapes["img_in.weight"]
    return dict(
        in_channels=in_channels,
        out_channels=shapes["final_layer.linear.weight"][0],
        context_in_dim=shapes["txt_in.weight"][1],
        hidden_size=hidden_size,
        num_heads=hidden_size // sum(axes_dim),
        depth=count_blocks(shapes, "double_blocks"),
        depth_single_blocks=count_blocks(shapes, "single_blocks"),
        guidance_embed="guidance_in.in_layer.weight" in shapes,
    )


def count_blocks(shapes: Mapping[str, tuple[int, ...]], kind: str) -> int:
    """Counts how many blocks of a kind the keys of a checkpoint name."""
    return len({key.split(".")[1] for key in shapes if key.startswith(f"{kind}.")})
