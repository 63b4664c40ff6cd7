"""A source: the given image as VAE latents, and what the user wants of it.

The knobs that change its keys and values (router, expert strength, lean, position) are part of what
a cache must know; those that only change how it is read (strength, window, region) are not.
"""

import hashlib
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from .boxes import Rectangle, draw_mask
from .config import BankInfo
from .files.validate import check_choice, check_range
from .fit_image import TOKEN_PIXELS
from .flux.blocks import FluxModel
from .flux.families import find_latent_family
from .positions import Grid, token_grid
from .router import ABLATIONS
from .tasks import TASKS

MODES = {"concept": -1.0, "balanced": 0.0, "localisation": 1.0}
"""Marks of a routing's lean: -1 and 1 favour the experts whose role is called so."""
CURVES = {
    "fade out": (1.0, 0.0),
    "fade in": (0.0, 1.0),
    "first half": (1.0, 1.0, 0.0, 0.0),
    "second half": (0.0, 0.0, 1.0, 1.0),
    "middle": (0.0, 1.0, 0.0),
}
"""Shapes of a routing's curve by name (our choice: the five plainest; halves are a third of all blocks full, and a third fading)."""
PLACEMENTS = ("gpu", "cpu", "fp8")
POSITIONS = ("auto", "aligned", "shifted", "reference")


@dataclass(frozen=True)
class Routing:
    """What decides a source's keys and values, besides its pixels."""

    task: str = "edit"
    router: str = ""
    """Empty: the task's own; else a stage of the bank, or "final"."""
    expert: str = ""
    """Empty: the router chooses; else this expert in every block, with gate 1."""
    lean: float = 0.0
    """-1: concept experts win wherever there are any, 1: localisation experts do."""
    strength: float = 1.0
    """Scales what experts add; 0 leaves FLUX's own keys and values."""
    position: str = "auto"
    """"aligned": over the target, stretched to it; "shifted": beside it; "reference": on an axis of its own; "auto": as the task was trained."""
    shift: tuple[float, float] = (0.0, 1.0)
    """Down and right, in target sizes, when shifted (our choice: one width to the right)."""
    curve: tuple[float, ...] = ()
    """Factors of `strength` from the first block to the last, straight lines between them; empty: 1 in all."""
    older: str = ""
    """An ablation: "newest" gives what older experts would take to the router's last one, "none" to no expert; empty: theirs."""
    older_in: tuple[str, ...] = ()
    """The blocks in which `older` acts; empty: all."""

    def __post_init__(self):
        check_choice("position", self.position, POSITIONS)
        check_choice("older", self.older, ("", *ABLATIONS))
        check_range("lean", self.lean, -1, 1)
        check_range("expert strength", self.strength, -100, 100)
        for part in self.shift:
            check_range("shift", part, -1000, 1000)
        for part in self.curve:
            check_range("curve", part, -100, 100)

    def choose_position(self, trained: str = "") -> str:
        """Chooses a row of POSITION: the user's, else the one that an expert was trained with, else the task's."""
        if self.position != "auto":
            return self.position
        return trained or (TASKS[self.task].position if self.task in TASKS else "aligned")


Fit = Callable[[BankInfo], tuple[Tensor, Routing]]
"""From a bank to a source's latent and routing as the bank's experts know them."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Reading:
    """How keys and values that stand behind the base's own are read and where they wait: none of it changes them."""

    strength: float = 1.0
    """Weight of its keys in attention; 1 costs nothing, 0 switches the source off."""
    start: float = 0.0
    end: float = 1.0
    """The part of the sampling, 0 first step to 1 last, in which it is read."""
    region: Tensor | None = None
    """(height, width) in 0..1: where in the target it may be read; None everywhere."""
    boxes: tuple[Rectangle, ...] = ()
    """The same as rectangles in the target's pixels; none: everywhere."""
    placement: str = "gpu"
    """Where K/V wait between steps: "gpu", "cpu" (streamed), or "fp8" (half the memory)."""
    keep: bool = False
    """Keep K/V on the CPU for the next run with the same source."""

    def __post_init__(self):
        check_choice("placement", self.placement, PLACEMENTS)
        check_range("strength", self.strength, 0, 100)
        check_range("start", self.start, 0, 1)
        check_range("end", self.end, 0, 1)
        if self.start >= self.end:
            raise ValueError(
                f"The source starts at {self.start} and ends at {self.end}: let it end later than it starts."
            )
        if self.region is not None:
            self._check_region(self.region)

    def _check_region(self, region: Tensor) -> None:
        if region.ndim != 2 or not region.numel():
            raise ValueError(f"The region has shape {tuple(region.shape)}, expected (height, width): connect a mask.")
        if not (0 <= region.min() and region.max() <= 1):  # false for nan, too
            raise ValueError(f"The region runs from {region.min()} to {region.max()}, expected 0 to 1.")

    def is_on(self, progress: float) -> bool:
        """Says whether it is read at this part of the sampling; the ends 0 and 1 are open."""
        has_begun = self.start <= 0 or progress >= self.start
        return self.strength > 0 and has_begun and (self.end >= 1 or progress < self.end)

    @property
    def digest(self) -> str:
        """A hash of what decides K/V."""
        raise NotImplementedError

    def count_keys(self, patch_size: int, images: int) -> int:
        """Counts how many keys stand behind those of a batch of so many images."""
        raise NotImplementedError

    @cached_property
    def identity(self) -> str:
        """A hash of all fields; the host batches two conditionings only if their sources' are equal (SourceCond)."""
        rest = (self.strength, self.start, self.end, self.placement, self.keep, *self.boxes)
        return self.digest + repr(rest) + ("" if self.region is None else hash_tensor(self.region))


@dataclass(frozen=True, eq=False)
class Source(Reading):
    """One source image (or a batch of them) with its knobs. Immutable: caches rely on it."""

    latent: Tensor
    """(batch, channels, height, width) as the VAE gives it."""
    routing: Routing = field(default_factory=Routing)
    together: bool = True
    """Where no low-rank experts are: whether it and the prompt's other references see one another, as klein 9B-KV was trained."""
    number: int = 1
    """Which of a prompt's references it is, from 1: its place where the position is "reference"."""
    fit: Fit | None = None
    """Fits it to the bank that it meets; None: it is as its experts know it."""
    prompt: Tensor | None = None
    """(batch, tokens, width), encoded: what an expert that is a whole model reads beside it; None: the base's own prompt."""

    def __post_init__(self):
        super().__post_init__()
        shape = tuple(self.latent.shape)
        find_latent_family(self.latent)
        if not self.latent.numel():
            raise ValueError(f"The source latent has shape {shape}, expected a picture: connect one and its VAE.")
        if not torch.isfinite(self.latent).all():
            raise ValueError("The source latent holds values that are not finite: check the picture and the VAE.")
        if self.prompt is not None and (self.prompt.ndim != 3 or not self.prompt.numel()):
            raise ValueError(
                f"The source's prompt has shape {tuple(self.prompt.shape)}, expected (batch, tokens, width)."
            )

    def count_keys(self, patch_size: int, images: int) -> int:
        rows, columns = token_grid(self.latent, patch_size)
        return rows * columns * min(len(self.latent), images)

    @cached_property
    def latent_hash(self) -> str:
        return hash_tensor(self.latent)

    @cached_property
    def prompt_hash(self) -> str:
        """A hash of the prompt of its own, "" if it has none."""
        return "" if self.prompt is None else hash_tensor(self.prompt)

    @cached_property
    def digest(self) -> str:
        """A hash of what decides K/V, the latent, routing and number; Attachment's cache finds K/V by it."""
        return self.latent_hash + repr((*astuple(self.routing), self.number))

    @cached_property
    def identity(self) -> str:
        return super().identity + self.prompt_hash + repr(self.together)


def count_latent_channels(flux: FluxModel) -> int:
    """Counts the channels of latents that img_in reads: 16 on FLUX.1, 96 on its Fill, 128 on FLUX.2."""
    return flux.in_channels // flux.patch_size**2


def fill_channels(latent: Tensor, channels: int) -> Tensor:
    """Gives a source the extra channels of Fill and control models, whose img_in reads more than a VAE's latents.

    Our choice: it is a finished picture, so the "given image" channels repeat it and the mask
    channels are 0, nothing to paint.
    """
    missing = channels - latent.shape[1]
    if missing <= 0:
        return latent
    given = latent[:, : min(missing, latent.shape[1])]
    return torch.cat([latent, given, latent.new_zeros(len(latent), missing - given.shape[1], *latent.shape[2:])], dim=1)


def read_bias(source: Reading, text: int, target: Grid, queries: int) -> Tensor | None:
    """Gives the log weight (queries, 1) that text and noise give the source's keys; None if it is 0 everywhere.

    Text reads the source with its strength; image tokens with strength times the region.
    """
    if source.strength == 1 and source.region is None and not source.boxes:
        return None
    weight = torch.full((queries,), float(source.strength))
    region = source.region
    if source.boxes:
        region = draw_mask(source.boxes, target.rows * TOKEN_PIXELS, target.columns * TOKEN_PIXELS)
    if region is not None:
        region = F.interpolate(region[None, None].float().cpu(), (target.rows, target.columns), mode="area")
        weight[text : text + region.numel()] *= region.flatten()
    return weight.log()[:, None]


def hash_tensor(tensor: Tensor) -> str:
    """Hashes a tensor's content, shape and type."""
    data = tensor.detach().cpu().contiguous()
    digest = hashlib.blake2b(data.view(-1).view(torch.uint8).numpy().data, digest_size=16).hexdigest()
    return f"{digest}{tuple(data.shape)}{data.dtype}"
