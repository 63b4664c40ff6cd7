"""The FLUX families: a file and a row each."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from . import chroma, flux1, flux2
from .inputs import BlockModulation, SourceConditions
from .math import timestep_embedding

Flux = flux1.Flux | flux2.Flux2


def tokenize(flux: Any, latent: torch.Tensor, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Calls a model's own `process_img`."""
    return flux.process_img(latent, **options)


def read_time(flux: Any, times: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
    """Returns the layer that reads timesteps, and what it reads at these."""
    return flux.time_in, timestep_embedding(times)


def has_guidance_in(params: Any) -> bool:
    """Says whether a model of this shape embeds guidance (dev) or takes none."""
    return bool(params.guidance_embed)


class Embedded(NamedTuple):
    """From the weights of a family's file to a model of our own."""

    read: tuple[str, ...]
    """Matrices of a checkpoint by whose shapes read_params finds the model's parameters."""
    read_params: Callable[[Mapping[str, tuple[int, ...]]], Any]
    params: type
    """The dataclass that says a model's shape."""
    model: Callable[[Any], Flux]


class Family(NamedTuple):
    """What differs between FLUX families: checkpoints, models, latents, and how a source is modulated and placed."""

    name: str
    label: str
    """Its name for people."""
    marks: tuple[str, ...]
    """Keys that its files have, and no other family's all together."""
    embedded: Embedded | None
    """How its files become models of our own; None: it runs in ComfyUI only."""
    module: str
    """A module that its models have, ours and ComfyUI's, and no other family's."""
    modulate_source: Callable[[Any, SourceConditions, torch.dtype], BlockModulation]
    reads_prompt: bool
    """Whether a source's modulation holds the prompt's pooled vector."""
    latent_channels: int
    """Of what its VAE gives."""
    latent_pixels: int
    """Pixels along a latent's side."""
    latent_scale: float
    latent_shift: float
    """FLUX sees (latent - shift) * scale of what the VAE gives."""
    text_encoders: Mapping[int, str]
    """How wide a prompt's rows are -> the text encoder that they are from, for people."""
    position: str
    """Where a source lies if neither its user nor its expert says so; "": where its task says."""
    reference_step: int
    """How far apart references lie on the first axis of positions, for the position "reference"."""
    time_shift: Callable[[int, int], float]
    """Sampler steps and a picture's tokens -> mu, by which timesteps are shifted towards noise (sampling.py)."""
    source_guidance: str = ""
    """Which guidance a source has if its expert does not say so: "live", the picture's own; "": the bank's constant."""
    tokenize: Callable[..., tuple[torch.Tensor, torch.Tensor]] = tokenize
    """A model, a latent and what ComfyUI's takes besides -> image tokens and their ids."""
    read_time: Callable[[Any, torch.Tensor], tuple[nn.Module, torch.Tensor]] = read_time
    """A model and timesteps -> the layer that reads them, and its input."""
    reads_guidance: Callable[[Any], bool] = has_guidance_in
    """Whether a model of this shape (`params`) embeds guidance."""
    text_rows: int = 0
    """ComfyUI fills shorter prompts up to as many tokens, with zeros in front; 0: to none."""
    orders_text: bool = False
    """Whether a prompt's tokens lie at positions of their own, so that the place of one among them counts."""
    mlp_width: int = 4
    """Of a block's MLP, in widths of the model."""
    mlp_rows: int = 4
    """What the MLP's first layer gives, in widths of the model: twice as much where it is gated."""


FLUX1 = Family(
    name="flux1",
    label="FLUX.1",
    marks=flux1.MARKS,
    embedded=Embedded(flux1.READ, flux1.read_params, flux1.FluxParams, flux1.Flux),
    module="vector_in",
    modulate_source=flux1.modulate_source,
    reads_prompt=True,
    latent_channels=16,
    latent_pixels=8,
    latent_scale=flux1.LATENT_SCALE,
    latent_shift=flux1.LATENT_SHIFT,
    text_encoders={4096: "T5-XXL, FLUX.1's and Chroma's"},
    position="",
    reference_step=1,
    time_shift=flux1.time_shift,
)
FLUX2 = Family(
    name="flux2",
    label="FLUX.2",
    marks=flux2.MARKS,
    embedded=Embedded(flux2.READ, flux2.read_params, flux2.Flux2Params, flux2.Flux2),
    module="double_stream_modulation_img",
    modulate_source=flux2.modulate_source,
    reads_prompt=False,
    latent_channels=128,
    latent_pixels=16,
    latent_scale=1.0,
    latent_shift=0.0,
    text_encoders={
        7680: "Qwen3-4B, FLUX.2 klein 4B's",
        12288: "Qwen3-8B, FLUX.2 klein 9B's",
        15360: "Mistral Small 3.2, FLUX.2 dev's",
    },
    position="reference",
    reference_step=10,
    time_shift=flux2.time_shift,
    text_rows=512,
    orders_text=True,
    mlp_width=3,
    mlp_rows=6,
)
CHROMA = Family(
    name="chroma",
    label="Chroma",
    marks=chroma.MARKS,
    embedded=None,
    module="distilled_guidance_layer",
    modulate_source=chroma.modulate_source,
    reads_prompt=False,
    latent_channels=16,
    latent_pixels=8,
    latent_scale=flux1.LATENT_SCALE,
    latent_shift=flux1.LATENT_SHIFT,
    text_encoders=FLUX1.text_encoders,
    position="",
    reference_step=1,
    time_shift=flux1.time_shift,
    source_guidance="live",
    tokenize=chroma.tokenize,
    read_time=chroma.read_time,
    reads_guidance=lambda params: True,
)
FAMILIES = {family.name: family for family in (FLUX1, FLUX2, CHROMA)}


def find_latent_family(latent: torch.Tensor) -> Family:
    """Finds a family whose VAE makes such latents (batch, channels, height, width); the first one where several do."""
    for family in FAMILIES.values():
        if latent.ndim == 4 and latent.shape[1] == family.latent_channels:
            return family
    known = " or ".join(f"{family.latent_channels} channels for {family.label}" for family in FAMILIES.values())
    raise ValueError(
        f"The latent has shape {tuple(latent.shape)}, expected (batch, channels, height, width) with {known}: connect the "
        f"VAE that belongs to your FLUX and a picture."
    )


def find_model_family(flux: Any) -> Family:
    """Finds the family of a model, ours or ComfyUI's."""
    for family in FAMILIES.values():
        if getattr(flux, family.module, None) is not None:
            return family
    known = " or ".join(family.label for family in FAMILIES.values())
    raise ValueError(f"The model is a {type(flux).__name__} of another family, expected {known}: load one of these.")


def describe_text_width(width: int) -> str:
    """Says how wide a prompt's rows are, and which text encoder they are from."""
    known = {width: name for family in FAMILIES.values() for width, name in family.text_encoders.items()}
    return f"{width} wide ({known[width]})" if width in known else f"{width} wide"


def check_latent_channels(latent: torch.Tensor, family: Family) -> None:
    """Raises if a source's latent (batch, channels, height, width) is from another family's VAE."""
    if latent.shape[1] != family.latent_channels:
        raise ValueError(
            f"A source's latent has {latent.shape[1]} channels (the VAE of {find_latent_family(latent).label}), expected "
            f"{family.latent_channels} for {family.label}: connect the VAE that belongs to the model."
        )
