"""What a recipe's stages will take on a device, before there are data or weights on this machine: shapes alone count."""

from collections.abc import Iterator

import torch

from ..prw.base_model import Base
from ..prw.embedded_host import EmbeddedHost
from ..prw.flux.families import Flux, find_model_family
from ..prw.flux.inputs import EncodedPrompt
from .add_expert import add_expert, make_empty_bank
from .base.quantize import quantize_blocks
from .data.encoded.dataset import MemoryDataset
from .data.encoded.samples import EncodedSamples
from .forward import EMBEDDED_CHECKPOINTING
from .memory_estimate import MemoryEstimate, estimate_memory
from .recipes.curriculum import Curriculum, Settings
from .stage_context import StageContext
from .stage_trainer import StageTrainer

T5_TOKENS, QWEN3_TOKENS = 256, 512
"""Of a padded prompt, of FLUX.1 and FLUX.2."""
SHAPES_ALONE = "meta"
"""The device on which tensors have no numbers."""


def estimate_recipe(curriculum: Curriculum, flux: Flux, dtype: torch.dtype) -> Iterator[tuple[str, MemoryEstimate]]:
    """Yields each stage's name and what it takes with a base of this shape, whose weights are not read."""
    settings = curriculum.settings
    flux = flux.to(SHAPES_ALONE).to(dtype)
    if settings.base_weights != "plain":
        quantize_blocks(flux, settings.base_weights, SHAPES_ALONE)
    host = EmbeddedHost(flux, dtype)
    bank = make_empty_bank(Base.of(flux), settings)
    for number, stage in enumerate(curriculum.stages):
        bank = add_expert(bank, stage, settings, 0)
        samples = make_samples(flux, settings, settings.micro or stage.batch)
        empty = EncodedPrompt(samples.context[:1], samples.pooled[:1])
        datasets = {each.task: MemoryDataset(each.task, samples, 0) for each in curriculum.stages[: number + 1]}
        context = StageContext(host, stage, number, settings, datasets, empty, 0, EMBEDDED_CHECKPOINTING)
        yield stage.name, estimate_memory(StageTrainer(context, bank))


def make_samples(flux: Flux, settings: Settings, count: int) -> EncodedSamples:
    """Makes empty samples of a recipe's size, the source as large as the picture."""
    family = find_model_family(flux)
    side = settings.resolution // family.latent_pixels
    latents = torch.zeros(count, family.latent_channels, side, side)
    tokens = T5_TOKENS if family.reads_prompt else QWEN3_TOKENS
    context = torch.zeros(count, tokens, flux.params.context_in_dim, dtype=torch.bfloat16)
    pooled = torch.zeros(count, flux.params.vec_in_dim if family.reads_prompt else 0)
    names = ("",) * count
    return EncodedSamples(names, names, latents, latents, context, pooled)
