"""How a picture becomes a source: its size, its shape, and what stands in its holes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

GRID = 16
"""Pixels a token covers: sizes are rounded to it, because FLUX would fill up the rest by wrapping round."""
HOLES = {"": 128 / 255, "black": 0.0}
"""What a hole is filled with: the paper's grey, or another colour that imported experts know."""


def rgb(image: Tensor) -> Tensor:
    """IMAGE (batch, height, width, channels) without alpha, grey as three equal channels."""
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(
            f"The image has shape {tuple(image.shape)}, expected (batch, height, width, 3): connect a picture."
        )
    image = image.float()[..., :3]
    return image if image.shape[-1] == 3 else image[..., :1].expand(-1, -1, -1, 3)


def keep(image: Tensor, longest: int) -> Tensor:
    """Its own shape, at most `longest` pixels a side (0: any)."""
    height, width = image.shape[1:3]
    scale = min(1.0, longest / max(height, width)) if longest else 1.0
    return stretched(image, [max(GRID, round(side * scale / GRID) * GRID) for side in (height, width)])


def stretched(image: Tensor, size: Sequence[int]) -> Tensor:
    """To a height and width, bicubic; of that size already, it stays as it is."""
    if list(image.shape[1:3]) == list(size):
        return image
    resized = F.interpolate(image.movedim(-1, 1), tuple(size), mode="bicubic", antialias=True)
    return resized.clamp(0, 1).movedim(1, -1)


def stretch(image: Tensor, side: int) -> Tensor:
    """A square, whatever its shape was."""
    return lanczos(image, side, side)


def pad(image: Tensor, side: int) -> Tensor:
    """In the middle of a square of mid-grey, as large as it goes."""
    height, width = (max(GRID, int(x * side / max(image.shape[1:3])) // GRID * GRID) for x in image.shape[1:3])
    square = image.new_full((len(image), side, side, image.shape[-1]), 0.5)
    top, left = (side - height) // 2, (side - width) // 2
    square[:, top : top + height, left : left + width] = lanczos(image, height, width)
    return square


FIT: dict[str, Callable[[Tensor, int], Tensor]] = {"": keep, "stretch": stretch, "pad": pad}
FITS = tuple(FIT)


def as_bytes(image: Tensor) -> np.ndarray:
    """IMAGE as pictures are kept on disk: 0 to 255."""
    return image.float().clamp(0, 1).mul_(255).round_().byte().cpu().numpy()


def lanczos(image: Tensor, height: int, width: int) -> Tensor:
    """Pillow's, on bytes, which is what the imported experts were trained on."""
    resized = [
        np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))
        for picture in as_bytes(image)
    ]
    return torch.from_numpy(np.stack(resized)).to(image) / 255


def filled(image: Tensor, hole: Tensor, colour: str) -> Tensor:
    """The picture with HOLES' colour where the mask (batch or 1, height, width) is white; sizes may differ."""
    mask = F.interpolate(hole[:, None].float(), image.shape[1:3], mode="nearest-exact")[:, 0, ..., None] > 0.5
    return torch.where(mask.to(image.device), HOLES[colour], image)
