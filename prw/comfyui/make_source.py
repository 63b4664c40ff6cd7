"""From a picture and knobs to a source in a prompt: what all task nodes share."""

from dataclasses import dataclass

import comfy.model_management
import torch
import torch.nn.functional as F
from comfy_api.latest import io
from torch import Tensor

from ..bank.bank import Bank
from ..fit_image import FIT, filled, keep, rgb
from ..select_experts import habits_of
from ..source import LATENT_CHANNELS, Routing, Source
from ..source_format import SourceFormat
from .conditioning import add_source


@dataclass(frozen=True, eq=False)
class Options:
    """Every knob of a source, as CoLoGen Source Options and CoLoGen Routing hand them on."""

    strength: float = 1.0
    expert_strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    size: int = 1024
    region: Tensor | None = None
    position: str = "auto"
    shift: tuple[float, float] = (0.0, 1.0)
    placement: str = "gpu"
    keep: bool = False
    lean: float = 0.0
    expert: str = ""
    router: str = ""
    curve: tuple[float, ...] = ()

    def routing(self, task: str) -> Routing:
        return Routing(
            task=task,
            router=self.router,
            expert=self.expert,
            lean=self.lean,
            strength=self.expert_strength,
            position=self.position,
            shift=self.shift,
            curve=self.curve,
        )


def refuse_none(clip) -> None:
    if clip is None:  # Load FLUX gives none where its encoders are none
        raise ValueError(
            "There is no CLIP, expected FLUX's text encoders (CLIP-L and T5-XXL): connect them from DualCLIPLoader or "
            "Load FLUX."
        )


def source_of(
    vae, image: Tensor, task: str, options: Options, experts: Bank | None, hole: Tensor | None = None
) -> Source:
    if vae is None:
        raise ValueError("There is no VAE, expected FLUX's (ae.safetensors): connect it from Load VAE or Load FLUX.")
    routing = options.routing(task)
    habits = SourceFormat() if experts is None else habits_of(experts, routing)
    image = rgb(image) if hole is None else filled(rgb(image), masks(hole, len(image)), habits.hole)
    return Source(
        latent=vae.encode(FIT[habits.fit](image, habits.side or options.size)).detach().clone(),
        routing=routing,
        strength=options.strength,
        start=options.start,
        end=options.end,
        region=options.region,
        placement=options.placement,
        keep=options.keep,
    )


def masks(mask: Tensor, images: int) -> Tensor:
    """A MASK as (batch or 1, height, width)."""
    rows = mask.reshape(-1, *mask.shape[-2:])
    if len(rows) not in (1, images):
        raise ValueError(
            f"There are {len(rows)} masks for {images} images, expected one, or one an image: connect others."
        )
    return rows


def told(positive: list, negative: list | None, *sources: Source) -> tuple[list, list]:
    """Both prompts with the sources; where there is no negative, the positive without its words."""
    for source in sources:
        positive = add_source(positive, source)
        negative = None if negative is None else add_source(negative, source)
    return positive, wordless(positive) if negative is None else negative


def wordless(conditioning: list) -> list:
    blank = []
    for text, options in conditioning:
        pooled = options.get("pooled_output")
        rest = {} if pooled is None else {"pooled_output": torch.zeros_like(pooled)}
        blank.append([torch.zeros_like(text), {**options, **rest}])
    return blank


def empty_latent(images: int, height: int, width: int) -> dict:
    """A LATENT for pictures of so many pixels, both multiples of 16."""
    device = comfy.model_management.intermediate_device()
    return {"samples": torch.zeros(images, LATENT_CHANNELS, height // 8, width // 8, device=device)}


def alone(
    task: str, positive, negative, vae, image: Tensor, options: Options | None, experts: Bank | None
) -> io.NodeOutput:
    """A source as it is, and a latent of its own size."""
    options = options or Options()
    source = source_of(vae, image, task, options, experts)
    height, width = keep(rgb(image), options.size).shape[1:3]
    return io.NodeOutput(*told(positive, negative, source), empty_latent(len(image), height, width))


def resized(mask: Tensor, size) -> Tensor:
    """A mask (batch, height, width) as bools of another size."""
    return F.interpolate(mask[:, None].float(), tuple(size), mode="bilinear", antialias=True)[:, 0] > 0.5


def one_mask(region: Tensor) -> Tensor:
    """A MASK as (height, width); one for all pictures of a batch."""
    masks = region.reshape(-1, *region.shape[-2:])
    if len(masks) != 1:
        raise ValueError(f"The region holds {len(masks)} masks, expected one: give each its own CoLoGen Source.")
    if not masks.any():
        raise ValueError(
            "The region is empty, expected some white: paint it, or disconnect it (Load Image gives an empty mask "
            "for a picture without transparency)."
        )
    return masks[0].clone()
