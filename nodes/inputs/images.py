"""Batches of pictures as single ones."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ...prw.fit_image import to_bytes, to_rgb


def split_images(images: Sequence[Tensor]) -> list[np.ndarray]:
    """Splits pictures uint8 (height, width, 3) of IMAGE batches of any sizes."""
    return [picture for image in images for picture in to_bytes(to_rgb(image))]


def match_count(name: str, values: list, count: int) -> list:
    """Gives as many values as there are results: one counts for all, none for none."""
    if values and len(values) not in (1, count):
        raise ValueError(
            f"There are {count} results and {len(values)} {name}, expected as many, or one for all: add some, or leave "
            f"some out."
        )
    return values * count if len(values) == 1 else values
