"""A hole of a large picture, drawn at the model's size: which part of the picture is cut out, and how it goes back.

A window is a rectangle of the picture round a hole; what is drawn has its shape, in a size that FLUX can draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .fit_image import TOKEN_PIXELS, limit_size, resize_bicubic, to_rgb

NARROWEST = 0.5
"""Our choice: a window's shorter side is at least this much of its longer one; FLUX draws no strips."""
MAX_ENLARGEMENT = 4
"""Our choice: a window is at least so large that no pixel is enlarged more; a small hole needs surroundings."""
FAINT = 0.02
"""Our choice: what a mask has below this is black; a mask that was saved as JPEG is nowhere quite so."""
TINT, FRAME, PREVIEW = (1.0, 0.0, 0.2), (1.0, 1.0, 0.0), 1024
"""A preview's colours of hole and window, and its longest side."""

Size = Sequence[int]


@dataclass(frozen=True)
class Window:
    """A rectangle in a picture's pixels; of a picture that is smaller it reaches over the edges."""

    top: int
    left: int
    height: int
    width: int

    def clip(self, size: Size) -> tuple[slice, slice]:
        """Gives rows and columns of the picture within the window."""
        bottom, right = min(self.top + self.height, size[0]), min(self.left + self.width, size[1])
        return slice(max(self.top, 0), bottom), slice(max(self.left, 0), right)


@dataclass(frozen=True, eq=False)
class Stitch:
    """What it takes to put drawn crops back into the pictures that they are of."""

    image: Tensor
    """The pictures as they came, with their alpha: (batch, height, width, channels)."""
    hole: Tensor
    """What may change, grown, from 0 to 1: (batch, height, width)."""
    feather: int
    windows: tuple[Window, ...]
    size: tuple[int, int]
    """Height and width of the crops."""


def plan_windows(hole: Tensor, context: float, longest: int) -> tuple[tuple[Window, ...], tuple[int, int]]:
    """Plans a window for each hole (batch, height, width), all of one size,
    and the size that their crops are drawn at."""
    picture, boxes = hole.shape[1:], [find_box(one, i, len(hole)) for i, one in enumerate(hole)]
    box = [max(box[side].stop - box[side].start for box in boxes) for side in (0, 1)]
    window, size = plan_size(box, picture, context, longest)
    corners = [[place(box[side], window[side], picture[side]) for side in (0, 1)] for box in boxes]
    return tuple(Window(top, left, *window) for top, left in corners), size


def find_box(hole: Tensor, number: int, count: int) -> tuple[slice, slice]:
    """Finds the rows and columns that a hole (height, width) takes."""
    if not hole.any():
        which = "The mask" if count == 1 else f"Mask {number + 1} of {count}"
        raise ValueError(f"{which} is empty, expected some white: paint what shall be new in the mask editor.")
    rows, columns = (hole.any(side).nonzero()[:, 0] for side in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def plan_size(box: Size, picture: Size, context: float, longest: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Plans a window's height and width for a hole's, and those of its crop: multiples of 16 in the same proportion."""
    enlarged = max(context, longest / MAX_ENLARGEMENT / max(box))
    wanted = [min(side * enlarged, limit) for side, limit in zip(box, picture)]
    narrowest = max(wanted) * NARROWEST
    wanted = [min(round(max(side, narrowest)), limit) for side, limit in zip(wanted, picture)]
    reach = max(wanted)  # becomes `longest`
    sides = []
    for needed, side, limit in zip(box, wanted, picture):
        crop = -(-side * longest // (reach * TOKEN_PIXELS)) * TOKEN_PIXELS
        fewer = limit * longest // (reach * TOKEN_PIXELS) * TOKEN_PIXELS  # what fits into the picture
        if crop > fewer and round(fewer * reach / longest) >= needed:
            crop = fewer
        sides.append((round(crop * reach / longest), crop))
    (height, rows), (width, columns) = sides
    return (height, width), (rows, columns)


def place(box: slice, window: int, picture: int) -> int:
    """Finds where a window begins that has a hole in its middle, as far as the picture goes."""
    if window > picture:
        return (picture - window) // 2
    return min(max((box.start + box.stop - window) // 2, 0), picture - window)


def cut_windows(image: Tensor, windows: Sequence[Window]) -> Tensor:
    """Cuts the window of each picture or mask (batch, height, width, ...);
    beyond an edge the picture's last pixels repeat."""
    cut = []
    for picture, window in zip(image, windows):
        rows = torch.arange(window.top, window.top + window.height, device=image.device)
        columns = torch.arange(window.left, window.left + window.width, device=image.device)
        height, width = picture.shape[:2]
        cut.append(picture[rows.clamp(0, height - 1)][:, columns.clamp(0, width - 1)])
    return torch.stack(cut)


def stitch_windows(stitch: Stitch, drawn: Tensor, weight: Tensor) -> Tensor:
    """Stitches what was drawn in their windows into the pictures, by weight (batch, height, width);
    where that is 0 they stay."""
    count = len(stitch.windows)
    check_drawn(stitch, drawn)
    drawn = resize_bicubic(drawn.float(), (stitch.windows[0].height, stitch.windows[0].width))
    drawn = match_channels(drawn, stitch.image.shape[-1]).to(stitch.image.device)
    numbers = [i % count for i in range(len(drawn))]
    whole = stitch.image[numbers]
    for k, i in enumerate(numbers):
        window = stitch.windows[i]
        rows, columns = window.clip(whole.shape[1:3])
        inside = [slice(side.start - at, side.stop - at) for side, at in ((rows, window.top), (columns, window.left))]
        part, by = whole[k, rows, columns], weight[i, rows, columns, None].to(whole.device)
        new = torch.lerp(part, drawn[k, inside[0], inside[1]], by)
        whole[k, rows, columns] = torch.where(by > 0, new, part)
    return whole


def check_drawn(stitch: Stitch, drawn: Tensor) -> None:
    """Refuses pictures that are not the crops: too few of them, or of another shape."""
    (height, width), count = drawn.shape[1:3], len(stitch.windows)
    if len(drawn) % count:
        raise ValueError(
            f"There are {len(drawn)} drawn pictures for {count} crops, expected a multiple: draw as many of each."
        )
    if abs(height - width * stitch.size[0] / stitch.size[1]) > TOKEN_PIXELS:
        raise ValueError(
            f"The drawn picture has {width} x {height} pixels, expected the shape of the crop, {stitch.size[1]} x "
            f"{stitch.size[0]}: connect what was drawn of CoLoGen Crop for Inpaint's image."
        )


def match_channels(drawn: Tensor, channels: int) -> Tensor:
    """Gives what was drawn as many channels as the original has: it covers what was transparent."""
    if channels == drawn.shape[-1]:
        return drawn
    drawn = to_rgb(drawn)
    return drawn if channels == 3 else torch.cat([drawn, torch.ones_like(drawn[..., :1])], -1)


def draw_preview(image: Tensor, hole: Tensor, windows: Sequence[Window]) -> Tensor:
    """Draws the pictures with hole and window marked, small enough to look at."""
    image = torch.lerp(image, image.new_tensor(TINT), hole[..., None].to(image) / 2)
    line = max(1, max(image.shape[1:3]) // 256)
    for picture, window in zip(image, windows):
        rows, columns = window.clip(picture.shape)
        frame = picture[rows, columns]
        inside = frame[line:-line, line:-line].clone()
        frame[:] = picture.new_tensor(FRAME)
        frame[line:-line, line:-line] = inside
    return limit_size(image, PREVIEW)
