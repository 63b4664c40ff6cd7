"""The host's MASKs as the method takes them."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def reshape_mask(mask: Tensor, images: int) -> Tensor:
    """A MASK for so many images as (batch or 1, height, width)."""
    rows = mask.reshape(-1, *mask.shape[-2:])
    if len(rows) not in (1, images):
        raise ValueError(
            f"There are {len(rows)} masks for {images} images, expected one, or one an image: connect others."
        )
    return rows


def resize_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """A mask (batch, height, width) as bools of another size."""
    return F.interpolate(mask[:, None].float(), tuple(size), mode="bilinear", antialias=True)[:, 0] > 0.5


def check_region(region: Tensor) -> Tensor:
    """A MASK that must be one for all pictures of a batch and not empty, as (height, width)."""
    masks = region.reshape(-1, *region.shape[-2:])
    if len(masks) != 1:
        raise ValueError(f"The region holds {len(masks)} masks, expected one: give each its own CoLoGen Source.")
    if not masks.any():
        raise ValueError(
            "The region is empty, expected some white: paint it, or disconnect it (Load Image gives an empty mask "
            "for a picture without transparency)."
        )
    return masks[0].clone()
