"""Where a source lies: its tokens' places on the target's grid, before rotation.

Axis 0 of an id is 0 for pictures and tells references apart; axes 1 and 2 are rows and columns, in tokens.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

TOKENS_BELOW = 64
"""Tokens down to where EasyControl lays its subjects: the height of a picture of 1024 pixels, whatever the target's."""


class Grid(NamedTuple):
    """Token positions along two axes: start and step of each, and how many."""

    y: float
    x: float
    step_y: float
    step_x: float
    rows: int
    columns: int

    @classmethod
    def of(cls, ids: Tensor, rows: int, columns: int) -> "Grid":
        """Reads the target's grid off its ids (tokens, axes), as other extensions left it."""
        (y, x), (last_y, last_x) = ids[0, 1:3].tolist(), ids[-1, 1:3].tolist()
        return cls(
            y, x, (last_y - y) / max(rows - 1, 1) or 1.0, (last_x - x) / max(columns - 1, 1) or 1.0, rows, columns
        )


def token_grid(latent: Tensor, patch: int) -> tuple[int, int]:
    """Gives rows and columns of image tokens; odd sizes are padded up."""
    return -(-latent.shape[-2] // patch), -(-latent.shape[-1] // patch)


def place_aligned(count: int, target: int, shift: float) -> Tensor:
    """Stretches so that the picture covers the target's: pixel centres map to pixel centres, equal sizes to equal ids."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) * (target / count) - 0.5


def place_shifted(count: int, target: int, shift: float) -> Tensor:
    """Places beside the target, by `shift` of its sizes."""
    return torch.arange(count) + shift * target


def place_corner(count: int, target: int, shift: float) -> Tensor:
    """Stretches from the first token's corner, as EasyControl does it."""
    return torch.arange(count, dtype=torch.float64) * (target / count)


def place_below(count: int, target: int, shift: float) -> Tensor:
    """Moves by `shift` in tokens, unstretched."""
    return torch.arange(count) + shift


def place_reference(count: int, target: int, shift: float) -> Tensor:
    """Counts rows and columns from 0; the first axis tells references apart, as FLUX.2 was trained."""
    return torch.arange(count)


POSITION: dict[str, Callable[[int, int, float], Tensor]] = {
    "aligned": place_aligned,
    "shifted": place_shifted,
    "corner": place_corner,
    "below": place_below,
    "reference": place_reference,
}
"""Tokens of the source and of the target along one axis, and a shift -> places, in steps of the target's grid."""


def source_ids(
    rows: int,
    columns: int,
    target: Grid,
    position: str,
    shift: tuple[float, float],
    axes: int = 3,
    reference_place: int = 0,
) -> Tensor:
    """Gives positions (1, tokens, axes) of a source of rows x columns tokens.

    `reference_place` is where a source of position "reference" lies on the first axis.
    """
    if position == "reference":
        target = Grid(0.0, 0.0, 1.0, 1.0, rows, columns)
    place, (down, right) = POSITION[position], (TOKENS_BELOW, 0.0) if position == "below" else shift
    ids = torch.zeros(rows, columns, axes)
    ids[..., 0] = reference_place if position == "reference" else 0
    ids[..., 1] = (target.y + target.step_y * place(rows, target.rows, down))[:, None]
    ids[..., 2] = target.x + target.step_x * place(columns, target.columns, right)
    return ids.reshape(1, rows * columns, axes)
