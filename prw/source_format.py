"""How an expert's source was given when it was trained.

A bank's routed experts share one source and have no format of their own. Imported ones bring theirs along.
"""

from dataclasses import dataclass

from torch import Tensor

from .files.validate import check_choice, check_range
from .fit_image import FIT_IMAGE, HOLE_VALUES, TOKEN_PIXELS
from .flux.families import find_latent_family
from .positions import POSITION


@dataclass(frozen=True)
class SourceFormat:
    """The size, place and guidance of a source in training; an empty field: as the bank or the task says."""

    guidance: str = ""
    """"live": the source's modulation gets the picture's own guidance instead of the bank's constant."""
    position: str = ""
    """Where the source lies (positions.py)."""
    side: int = 0
    """Sources were squares of so many pixels; 0: any size."""
    fit: str = ""
    """How a picture becomes that square: "stretch", or "pad" with grey."""
    hole: str = ""
    """The colour of filled holes (fit_image.py)."""

    def __post_init__(self):
        check_choice("guidance", self.guidance, ("", "live"))
        check_choice("position", self.position, ("", *POSITION))
        check_choice("fit", self.fit, tuple(FIT_IMAGE))
        check_choice("hole", self.hole, tuple(HOLE_VALUES))
        check_range("side", self.side, 0, 8192)
        if self.side % TOKEN_PIXELS:
            raise ValueError(f"side is {self.side}, expected a multiple of {TOKEN_PIXELS}")

    def describe_mismatch(self, latent: Tensor) -> str:
        """Describes what is unusual about a source's size, in a sentence, or ""."""
        pixels = find_latent_family(latent).latent_pixels
        height, width = (pixels * side for side in latent.shape[-2:])
        if not self.side or (height, width) == (self.side, self.side):
            return ""
        return (
            f"A CoLoGen source is {width} x {height} pixels, its expert was trained on {self.side} x {self.side}: "
            f"connect the experts to CoLoGen Source, too, and it fits the picture."
        )
