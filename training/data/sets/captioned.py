"""ADE20K and COCO-Stuff with captions and coloured maps, as ControlNet++ trains on them: Parquet on a hub."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .generic import Parquet


@dataclass(frozen=True)
class Captioned(Parquet):
    """Its class numbers are left aside: nothing public says which of the two counts they follow. So it has no objects."""

    COLUMNS: ClassVar[Mapping[str, str]] = {"picture": "image", "caption": "prompt", "seg": "control_seg"}
    LAYOUT: ClassVar[str] = "*.parquet with image, prompt, control_seg"
    HAS_THINGS: ClassVar[bool] = False
