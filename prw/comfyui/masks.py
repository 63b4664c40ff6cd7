"""The host's MASKs as the method takes them."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def list_masks(mask: Tensor) -> Tensor:
    """Reshapes a MASK of any number of dimensions to (batch, height, width)."""
    if mask.ndim < 2 or 0 in mask.shape:
        raise ValueError(
            f"The mask has shape {tuple(mask.shape)}, expected (batch, height, width): connect another mask."
        )
    return mask.reshape(-1, *mask.shape[-2:])


def reshape_mask(mask: Tensor, images: int) -> Tensor:
    """Reshapes a MASK for so many images to (batch or 1, height, width)."""
    rows = list_masks(mask)
    if len(rows) not in (1, images):
        raise ValueError(
            f"There are {len(rows)} masks for {images} images, expected one, or one an image: connect others."
        )
    return rows


def resize_soft_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes a mask (batch, height, width), which stays from 0 to 1 as it is."""
    if list(mask.shape[1:]) == list(size):
        return mask.float().clamp(0, 1)
    resized = F.interpolate(mask[:, None].float(), tuple(size), mode="bilinear", antialias=True)
    return resized[:, 0].clamp(0, 1)


def resize_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes a mask (batch, height, width), as bools."""
    return resize_soft_mask(mask, size) > 0.5


def find_subject(mask: Tensor, size: Sequence[int], mask_is: str) -> Tensor:
    """Finds where the subject is, as bools (batch, height, width) of another size.

    Load Image's mask of a picture with transparency is white where nothing is: "auto" takes a mask that is white along most of the
    picture's border for that (our choice), unless it is white all over.
    """
    white = resize_mask(mask, size)
    if mask_is == "auto":
        inverted = (measure_border(white) > 0.5) & ~white.flatten(1).all(1)
    else:
        inverted = torch.full((len(white),), mask_is == "background")
    subject = white ^ inverted.to(white.device)[:, None, None]
    if not subject.flatten(1).any(1).all():
        raise ValueError(
            "The mask shows no subject, expected some: paint it white, choose another mask_is, or disconnect the mask (Load Image "
            "gives an empty one for a picture without transparency)."
        )
    return subject


def measure_border(mask: Tensor) -> Tensor:
    """Measures the white part, 0 to 1, of each mask's (batch, height, width) border."""
    inner = mask[:, 1:-1]
    return torch.cat([mask[:, 0], mask[:, -1], inner[:, :, 0], inner[:, :, -1]], 1).float().mean(1)


def check_region(region: Tensor) -> Tensor:
    """Gives a MASK that must be one for all pictures of a batch and not empty, as (height, width)."""
    masks = list_masks(region)
    if len(masks) != 1:
        raise ValueError(f"The region holds {len(masks)} masks, expected one: give each its own CoLoGen Source.")
    if not masks.any():
        raise ValueError(
            "The region is empty, expected some white: paint it, or disconnect it (Load Image gives an empty mask "
            "for a picture without transparency)."
        )
    return masks[0].clone()


def grow_mask(mask: Tensor, pixels: int) -> Tensor:
    """Grows a mask (batch, height, width) by so many pixels to all sides; a soft one keeps its slopes."""
    from scipy import ndimage

    side = 2 * pixels + 1
    return torch.from_numpy(ndimage.maximum_filter(mask.cpu().numpy(), (1, side, side), mode="constant"))


def feather_mask(mask: Tensor, pixels: int) -> Tensor:
    """Lets a mask rise from 0 just outside the mask to 1 so many pixels within it."""
    from scipy import ndimage

    def depth(hole: np.ndarray) -> np.ndarray:
        if hole.all():  # without an outside there is no distance to it
            return np.full(hole.shape, pixels + 1, np.int32)
        return ndimage.distance_transform_cdt(hole, "chessboard")

    depths = np.stack([depth(hole) for hole in mask.cpu().numpy()])
    return torch.from_numpy(depths).clamp_(max=pixels + 1) / (pixels + 1)
