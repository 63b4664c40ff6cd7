"""How a stage does on samples that it never trained on: loss at fixed timesteps, usage without noise, pictures."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..prw.flux.families import find_model_family
from ..prw.flux.inputs import EncodedPrompt
from ..prw.flux.sampling import make_timesteps
from ..prw.positions import token_grid
from .batch import Batch
from .data.encoded.dataset import EncodedDataset
from .distributed import ranks
from .encoders.protocol import Encoders
from .objective import count_usage
from .sampling import SamplingSettings, sample_latents
from .stage_length import LengthCheck
from .stage_trainer import StageTrainer
from .trainer import Trainer

TIMES = tuple((i + 0.5) / 8 for i in range(8))
"""The middles of eight equal parts of the timesteps: where losses are compared, and usage where a source follows them."""
SEED = 0
MAX_SAMPLES = 16
"""Samples of each task in a validation."""


class Validation(NamedTuple):
    """What a validation finds for one task."""

    loss: float
    """The mean velocity error at TIMES."""
    usage: tuple[float, ...]
    """Every expert's share of the blocks, as at inference, over TIMES."""


def make_val_batch(dataset: EncodedDataset, count: int = MAX_SAMPLES) -> Batch:
    """Makes a batch of the first held-out samples (of all, where none is) of one bucket,
    with noise that never changes."""
    rows = range(dataset.train_count, len(dataset)) or range(len(dataset))
    rows = [row for row in rows if dataset.find_bucket(row) == dataset.find_bucket(rows[0])][:count]
    samples = dataset.read_samples(rows)
    noise = torch.randn(samples.target.shape, generator=torch.Generator().manual_seed(SEED))
    parts = (samples.target, samples.source, samples.context, samples.pooled)
    return Batch(dataset.task, samples.ids, *parts, torch.zeros(len(rows)), noise, (0,) * len(rows))


def split_batch(batch: Batch, size: int) -> Iterator[Batch]:
    """Splits into batches of at most `size` samples (0: all), so that validation fits where training does."""
    size = size or len(batch.ids)
    for start in range(0, len(batch.ids), size):
        part = slice(start, start + size)
        yield batch._replace(
            ids=batch.ids[part],
            target=batch.target[part],
            source=batch.source[part],
            context=batch.context[part],
            pooled=batch.pooled[part],
            times=batch.times[part],
            noise=batch.noise[part],
            seeds=batch.seeds[part],
            rows=batch.rows[part],
        )


@torch.no_grad()
def validate(trainer: Trainer) -> dict[str, Validation]:
    """Validates every task so far with the router in training: what it forgets shows here."""
    return {task: validate_task(trainer, task) for task in trainer.datasets}


@torch.no_grad()
def validate_task(trainer: Trainer, task: str) -> Validation:
    batch = make_val_batch(trainer.datasets[task])
    losses, shares = [], torch.zeros(len(trainer.expert_names))
    for piece in split_batch(batch, trainer.settings.micro):
        usages = []
        for time in TIMES:
            errors, routes = trainer.measure_errors(piece._replace(times=torch.full((len(piece.ids),), time)))
            losses += errors.tolist()
            usages.append(count_usage(routes.values(), len(trainer.expert_names)).double().cpu())
        shares = shares + torch.stack(usages).mean(0).float() * (len(piece.ids) / len(batch.ids))
    return Validation(float(np.mean(losses)), tuple(shares.tolist()))


def check_length(trainer: Trainer) -> LengthCheck | None:
    """Asks whether a stage of length "auto" is over, where that is due; rank 0 decides for all."""
    length, iteration, phases = trainer.length, trainer.iteration, trainer.timestep_schedule
    if not length.needs_check(iteration) or phases.phase < phases.phases:
        return length.close(iteration)
    loss, usage = ranks.broadcast_object(validate_task(trainer, trainer.stage.task))
    return length.check(iteration, loss, usage[-1], len(usage))


@torch.no_grad()
def sample_task(trainer: StageTrainer, task: str, count: int = 4) -> tuple[Tensor, Batch]:
    """Samples latents (as the VAE gives them) for held-out samples of a task, with the bank as it would be left now."""
    batch = make_val_batch(trainer.datasets[task], count)
    return torch.cat([_sample_batch(trainer, piece) for piece in split_batch(batch, trainer.settings.micro)]), batch


def _sample_batch(trainer: StageTrainer, batch: Batch) -> Tensor:
    source, context, pooled, noise = (
        part.to(trainer.device) for part in (batch.source, batch.context, batch.pooled, batch.noise)
    )
    rows, columns = token_grid(noise, trainer.host.flux.patch_size)
    how, family = trainer.settings, find_model_family(trainer.host.flux)
    steps = make_timesteps(how.sample_steps, rows * columns, family.time_shift)
    empty = None
    if how.sample_cfg != 1:
        empty = EncodedPrompt(*(repeat_rows(part, noise) for part in trainer.empty_prompt))
    routing, settings = trainer.make_routing(batch.task), SamplingSettings(steps, how.guidance, how.sample_cfg, empty)
    return sample_latents(
        trainer.host, trainer.exported_bank, routing, source, noise, EncodedPrompt(context, pooled), settings
    )


def repeat_rows(tensor: Tensor | None, like: Tensor) -> Any:
    """Repeats a tensor of one row for every row of another, and puts it beside that."""
    return None if tensor is None else tensor.to(like.device).expand(len(like), *tensor.shape[1:])


def make_sample_sheet(trainer: StageTrainer, encoders: Encoders) -> np.ndarray:
    """Makes a picture of a row a task: source, sampled picture and target, side by side, for a few held-out samples."""
    rows = []
    for task in trainer.datasets:
        latents, batch = sample_task(trainer, task)
        source, made, target = (encoders.decode(part) for part in (batch.source, latents, batch.target))
        cells = [resize(picture, made.shape[1:3]) for trio in zip(source, made, target) for picture in trio]
        rows.append(np.concatenate(cells, axis=1))
    return stack_rows(rows)


def stack_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stacks pictures, one below the other; narrow ones get black behind."""
    widest = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0))) for row in rows])


def resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    return picture if picture.shape[:2] == size else np.array(Image.fromarray(picture).resize(size[::-1]))
