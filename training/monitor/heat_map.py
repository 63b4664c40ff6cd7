"""Maps of numbers as pictures: a scale of colours, laid over a photo, and a sheet with its legend."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .route_map import INK, PAPER, stack_pictures, wrap_words

HEAT = ((8, 10, 32), (72, 28, 112), (186, 54, 86), (246, 140, 44), (252, 248, 190))
"""From 0 to 1. Each is lighter than the one before, so that it reads in grey and with any colour vision."""
OVER, BELOW = 0.75, 0.6
"""How much of the picture below a map it covers, and how bright that is: what is dark in the map stays dark."""
CELL, GAP, MAX_PICTURES = 384, 12, 4
"""The longer side of a picture on a sheet, the gap between two in pixels, and the most that stand beside each other."""


def colour_heat(values: Tensor) -> Tensor:
    """Colours numbers in 0..1: (..., 3) in 0..1."""
    stops = torch.tensor(HEAT, device=values.device) / 255
    place = values.clamp(0, 1) * (len(HEAT) - 1)
    low = place.floor().long().clamp(max=len(HEAT) - 2)
    return torch.lerp(stops[low], stops[low + 1], (place - low)[..., None])


def lay_over(heat: Tensor, pictures: Tensor) -> Tensor:
    """Lays heat maps over pictures (batch, height, width, 3) in grey."""
    below = BELOW * pictures.mean(-1, keepdim=True).to(heat)
    return torch.lerp(below.expand_as(heat), heat, OVER)


def expand_tokens(values: Tensor, token: int, size: tuple[int, int], resized: tuple[int, int] | None = None) -> Tensor:
    """Expands values a token (batch, rows, columns) to one a pixel (batch, height, width), smooth between their
    centres.

    `token` is a token's side and `size` the picture's in pixels; tokens may reach beyond it.
    """
    pixels = F.interpolate(values[:, None], scale_factor=token, mode="bilinear", align_corners=False)
    pixels = pixels[..., : size[0], : size[1]]
    if resized is not None and resized != size:
        pixels = F.interpolate(pixels, size=resized, mode="bilinear", align_corners=False)
    return pixels[:, 0]


def draw_heat_sheet(rows: Sequence[tuple[str, Tensor, float]]) -> Image.Image:
    """Draws a row a source: its title, pictures (batch, height, width, 3), and a legend from 0 to this highest value."""
    return stack_pictures([_draw_row(title, pictures, top) for title, pictures, top in rows])


def _draw_row(title: str, pictures: Tensor, highest: float) -> Image.Image:
    cells = [_enlarge(picture) for picture in pictures[:MAX_PICTURES]]
    width = max(GAP + sum(cell.width + GAP for cell in cells), CELL + 2 * GAP)
    line = width // 20  # as large when the sheet is shown small
    font = ImageFont.load_default(size=line * 4 // 5)
    heads = wrap_words(title, font, width - 2 * GAP)
    top, height = GAP + line * len(heads) + line // 2, max(cell.height for cell in cells)
    row = Image.new("RGB", (width, top + height + line * 3 // 2 + GAP), PAPER)
    draw, x = ImageDraw.Draw(row), GAP
    for i, words in enumerate(heads):
        draw.text((GAP, GAP + i * line), words, INK, font)
    for cell in cells:
        row.paste(cell, (x, top))
        x += cell.width + GAP
    y, (left, right) = top + height + line // 4, (GAP + 2 * line, width - GAP - 4 * line)
    ramp = (colour_heat(torch.linspace(0, 1, right - left)) * 255).round().byte().numpy()
    row.paste(Image.fromarray(np.repeat(ramp[None], line * 3 // 4, 0)), (left, y + line // 8))
    draw.text((left - line // 2, y), "0", INK, font, anchor="ra")
    draw.text((right + line // 2, y), f"{highest:.2g}" if 0 < highest < 0.001 else f"{highest:.1%}", INK, font)
    return row


def _enlarge(picture: Tensor) -> Image.Image:
    """Enlarges a picture to a longer side of CELL; the pixels of small ones stay visible."""
    drawn = Image.fromarray((picture.clamp(0, 1) * 255).round().byte().cpu().numpy())
    scale = CELL / max(drawn.size)
    size = (max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale)))
    return drawn.resize(size, Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS)
