"""From a picture and a user's options to a source in a prompt: what all task nodes share."""

from dataclasses import dataclass, field, replace
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ..bank.bank import Bank
from ..boxes import Rectangle
from ..config import BankInfo
from ..find_experts import find_source_format, resolve_names
from ..fit_image import FIT_IMAGE, fill_holes, limit_sides, to_rgb
from ..flux.families import find_latent_family
from ..source import Routing, Source
from ..source_format import SourceFormat
from .conditioning import add_source
from .masks import reshape_mask


@dataclass(frozen=True, eq=False)
class SourceOptions:
    """Every knob of a source, as CoLoGen Source Options and CoLoGen Routing hand them on (source.py says what they do)."""

    strength: float = 1.0
    expert_strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    size: int = 1024
    """The longest side in pixels that the picture is shrunk to; 0: never."""
    region: Tensor | None = None
    boxes: tuple[Rectangle, ...] = ()
    position: str = "auto"
    shift: tuple[float, float] = (0.0, 1.0)
    placement: str = "gpu"
    keep: bool = False
    lean: float = 0.0
    expert: str = ""
    router: str = ""
    curve: tuple[float, ...] = ()
    together: bool = True
    older: str = ""
    prompt: Tensor | None = None

    def make_routing(self, task: str) -> Routing:
        """Makes the options' part of a Routing, for this task."""
        return Routing(
            task=task,
            router=self.router,
            expert=self.expert,
            lean=self.lean,
            strength=self.expert_strength,
            position=self.position,
            shift=self.shift,
            curve=self.curve,
            older=self.older,
        )


def check_clip(clip) -> None:
    """Refuses a missing CLIP: Load FLUX (CoLoGen) gives none where its encoders are none."""
    if clip is None:
        raise ValueError(
            "There is no CLIP, expected FLUX's text encoders (CLIP-L and T5-XXL; Qwen3 or Mistral for FLUX.2): connect them "
            "from DualCLIPLoader, CLIPLoader or Load FLUX."
        )


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that becomes a source of a task as soon as a bank is known: its size, the colour of its hole, its expert."""

    vae: Any
    image: Tensor
    hole: Tensor | None
    task: str
    options: SourceOptions
    kind: str
    """Of a control map."""
    encoded: dict[tuple, Tensor] = field(default_factory=dict)
    """Latents, by how the picture was fitted."""

    def fit(self, info: BankInfo | None) -> tuple[Tensor, Routing]:
        """Fits the latent and routing as the bank's experts were trained on them; without one, as the paper's are."""
        routing = self.options.make_routing(self.task)
        if info is None:
            return self._encode(SourceFormat()), routing
        routing = resolve_names(info, pick_imported_expert(info, routing, self.kind))
        return self._encode(find_source_format(info, routing)), routing

    def _encode(self, given: SourceFormat) -> Tensor:
        side = given.side or self.options.size
        how = (given.fit, side, given.hole)
        if how not in self.encoded:
            image = self.image if self.hole is None else fill_holes(self.image, self.hole, given.hole)
            self.encoded[how] = self.vae.encode(FIT_IMAGE[given.fit](image, side)).detach().clone()
        return self.encoded[how]


def pick_imported_expert(info: BankInfo, routing: Routing, kind: str) -> Routing:
    """Gives the options with the imported expert for a kind of map, if the bank has one and the user named none."""
    if not kind or routing.expert:
        return routing
    names = [name for name, expert in info.experts.items() if kind in name.lower() and expert.source_format.side]
    return replace(routing, expert=names[0]) if len(names) == 1 else routing


def make_source(
    vae,
    image: Tensor,
    task: str,
    options: SourceOptions,
    experts: Bank | None,
    hole: Tensor | None = None,
    kind: str = "",
) -> Source:
    """Encodes an IMAGE for a task's experts; without a bank it is fitted to the one of the MODEL that will read it."""
    if vae is None:
        raise ValueError(
            "There is no VAE, expected FLUX's (ae.safetensors for FLUX.1, flux2-vae.safetensors for FLUX.2): connect it from "
            "Load VAE or Load FLUX."
        )
    image = to_rgb(image)
    hole = None if hole is None else reshape_mask(hole, len(image))
    picture = Picture(vae, image, hole, task, options, kind)
    latent, routing = picture.fit(None if experts is None else experts.info)
    return Source(
        latent=latent,
        routing=routing,
        strength=options.strength,
        start=options.start,
        end=options.end,
        region=options.region,
        boxes=options.boxes,
        placement=options.placement,
        keep=options.keep,
        together=options.together,
        prompt=options.prompt,
        fit=picture.fit if experts is None else None,
    )


def add_sources(positive: list, negative: list | None, *sources: Source) -> tuple[list, list]:
    """Gives both prompts with the sources; where there is no negative, the positive without its text."""
    for source in sources:
        positive = add_source(positive, source)
        negative = None if negative is None else add_source(negative, source)
    return positive, clear_text(positive) if negative is None else negative


def clear_text(conditioning: list) -> list:
    """Gives the conditioning with zeros for its text, as the host's ConditioningZeroOut makes it; sources stay."""
    cleared = []
    for text, options in conditioning:
        pooled = options.get("pooled_output")
        zeros = {} if pooled is None else {"pooled_output": torch.zeros_like(pooled)}
        cleared.append([torch.zeros_like(text), {**options, **zeros}])
    return cleared


def make_empty_latent(source: Source, images: int, height: int, width: int) -> dict:
    """Makes a LATENT for pictures of so many pixels, both multiples of 16,
    of the family that the source's latent is of."""
    family, device = find_latent_family(source.latent), comfy.model_management.intermediate_device()
    size = (height // family.latent_pixels, width // family.latent_pixels)
    return {"samples": torch.zeros(images, family.latent_channels, *size, device=device)}


def add_task_source(  # what task nodes are given
    task: str,
    positive: list,
    negative: list | None,
    vae,
    image: Tensor,
    options: SourceOptions | None,
    experts: Bank | None,
    kind: str = "",
) -> tuple[list, list, dict]:
    """Gives both prompts with one source, and an empty LATENT of the source's size."""
    options = options or SourceOptions()
    source = make_source(vae, image, task, options, experts, kind=kind)
    height, width = limit_sides(image.shape[1:3], options.size)
    return *add_sources(positive, negative, source), make_empty_latent(source, len(image), height, width)
