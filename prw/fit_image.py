"""How a picture becomes a source: its size, its shape, and what stands in its holes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

TOKEN_PIXELS = 16
"""A side of what a token covers: sizes are rounded to it, because FLUX would fill up the rest by wrapping round."""
HOLE_VALUES = {"": 128 / 255, "black": 0.0}
"""What holes are filled with: the paper's grey, or another colour that imported experts were trained with."""


def to_rgb(image: Tensor) -> Tensor:
    """Drops the alpha of an IMAGE (batch, height, width, channels); grey becomes three equal channels."""
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(
            f"The image has shape {tuple(image.shape)}, expected (batch, height, width, 3): connect a picture."
        )
    image = image.float()[..., :3]
    return image if image.shape[-1] == 3 else image[..., :1].expand(-1, -1, -1, 3)


def limit_size(image: Tensor, longest: int) -> Tensor:
    """Shrinks an image to at most `longest` pixels a side (0: any); its shape stays."""
    return resize_bicubic(image, limit_sides(image.shape[1:3], longest))


def limit_sides(sides: Sequence[int], longest: int) -> list[int]:
    """Gives the sides to which limit_size shrinks these: multiples of a token's."""
    scale = min(1.0, longest / max(sides)) if longest else 1.0
    return [max(TOKEN_PIXELS, round(side * scale / TOKEN_PIXELS) * TOKEN_PIXELS) for side in sides]


def resize_bicubic(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes to a height and width; an image of that size stays as it is."""
    if list(image.shape[1:3]) == list(size):
        return image
    resized = F.interpolate(image.movedim(-1, 1), tuple(size), mode="bicubic", antialias=True)
    return resized.clamp(0, 1).movedim(1, -1)


def stretch(image: Tensor, side: int) -> Tensor:
    """Stretches an image to a square."""
    return resize_lanczos(image, side, side)


def pad(image: Tensor, side: int) -> Tensor:
    """Puts an image in the middle of a square of mid-grey, as large as it goes."""
    height, width = (
        max(TOKEN_PIXELS, int(x * side / max(image.shape[1:3])) // TOKEN_PIXELS * TOKEN_PIXELS)
        for x in image.shape[1:3]
    )
    square = image.new_full((len(image), side, side, image.shape[-1]), 0.5)
    top, left = (side - height) // 2, (side - width) // 2
    square[:, top : top + height, left : left + width] = resize_lanczos(image, height, width)
    return square


FIT_IMAGE: dict[str, Callable[[Tensor, int], Tensor]] = {"": limit_size, "stretch": stretch, "pad": pad}
"""How a picture becomes a source, by SourceFormat.fit; the number is the longest side or the square's."""


def to_bytes(image: Tensor) -> np.ndarray:
    """Gives an IMAGE's values as 0 to 255, as pictures are stored."""
    return image.float().clamp(0, 1).mul_(255).round_().byte().cpu().numpy()


def resize_lanczos(image: Tensor, height: int, width: int) -> Tensor:
    """Resizes by Pillow, on bytes, which is what the imported experts were trained on."""
    resized = [
        np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))
        for picture in to_bytes(image)
    ]
    return torch.from_numpy(np.stack(resized)).to(image) / 255


def fill_holes(image: Tensor, hole: Tensor, colour: str) -> Tensor:
    """Fills an image with a colour of HOLE_VALUES where the mask (batch or 1, height, width) is white; sizes may differ."""
    mask = F.interpolate(hole[:, None].float(), image.shape[1:3], mode="nearest-exact")[:, 0, ..., None] > 0.5
    return torch.where(mask.to(image.device), HOLE_VALUES[colour], image)
