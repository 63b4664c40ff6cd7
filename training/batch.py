"""A batch as an iteration sees it: encoded samples with timesteps, noise and, now and then, the empty prompt."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..prw.flux.inputs import EncodedPrompt, FluxInputs
from .data.batch_sampler import SampleIndex
from .data.encoded.dataset import EncodedDataset
from .data.encoded.samples import pad_context
from .forward import SourceContext
from .objective import draw_times


class Batch(NamedTuple):
    """Samples of one task, ready for FLUX."""

    task: str
    ids: tuple[str, ...]
    target: Tensor
    """Latents as the VAE gives them (batch, channels, height, width); so is the source."""
    source: Tensor
    context: Tensor
    pooled: Tensor
    times: Tensor
    """(batch,), from 1 (noise) to 0 (picture)."""
    noise: Tensor
    seeds: tuple[int, ...]
    """Everything random about a sample follows from its seed."""
    rows: tuple[int, ...] = ()
    """The samples' places in their dataset."""


class NoisedBatch(NamedTuple):
    """A batch on its device with noise added and its source run through FLUX: a forward's inputs and its targets."""

    target: Tensor
    noise: Tensor
    inputs: FluxInputs
    source: SourceContext


class BatchSettings(NamedTuple):
    """How prompts are dropped and timesteps are drawn, the same for every sample."""

    empty: EncodedPrompt
    """Stands in for a dropped prompt."""
    text_drop: float
    """Share of samples whose prompt becomes the empty one."""
    shift: float = 1.0
    noisiest_share: float = 1.0
    """See draw_times."""


def make_batch(dataset: EncodedDataset, indices: Sequence[SampleIndex], settings: BatchSettings) -> Batch:
    """Reads the samples and draws their timesteps and noise from their seeds."""
    samples = dataset.read_samples([sample.index for sample in indices])
    context, pooled = samples.context, samples.pooled
    empty, empty_pooled = settings.empty
    times, noise = torch.empty(len(indices)), torch.empty_like(samples.target, dtype=torch.float32)
    for j, sample in enumerate(indices):
        generator = torch.Generator().manual_seed(sample.seed)
        times[j] = draw_times(1, generator, shift=settings.shift, noisiest_share=settings.noisiest_share)[0]
        is_dropped = torch.rand((), generator=generator) < settings.text_drop
        noise[j] = torch.randn(noise.shape[1:], generator=generator)
        if is_dropped:
            context[j] = pad_context(empty, context.shape[1])[0, : context.shape[1]]
            if empty_pooled is not None:
                pooled[j] = empty_pooled[0]
    seeds, rows = tuple(sample.seed for sample in indices), tuple(sample.index for sample in indices)
    return Batch(dataset.task, samples.ids, samples.target, samples.source, context, pooled, times, noise, seeds, rows)
