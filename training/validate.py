"""How a stage is doing on lessons it never trained on: loss at fixed timesteps, usage without noise, pictures."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..prw.flux.inputs import EncodedPrompt
from ..prw.flux.sampling import make_timesteps
from ..prw.positions import token_grid
from .batch import Batch
from .data.encoded.dataset import EncodedDataset
from .loop import StageTrainer
from .objective import usage_of_all
from .sampling import SamplingSettings, sample_latents

TIMES = tuple((i + 0.5) / 8 for i in range(8))
"""The middles of eight equal parts."""
SEED = 0
MOST = 16
"""MemoryDataset that a validation looks at."""


class Validation(NamedTuple):
    loss: float
    usage: tuple[float, ...]
    """Every expert's share of the blocks, as at inference."""


def held_out(dataset: EncodedDataset, most: int = MOST) -> Batch:
    """The first of those held out (of all, where none is), of one bucket, each with noise of its own that never changes."""
    rows = range(dataset.train_count, len(dataset)) or range(len(dataset))
    rows = [row for row in rows if dataset.bucket(row) == dataset.bucket(rows[0])][:most]
    samples = dataset.rows(rows)
    noise = torch.randn(samples.target.shape, generator=torch.Generator().manual_seed(SEED))
    parts = (samples.target, samples.source, samples.context, samples.pooled)
    return Batch(dataset.task, samples.ids, *parts, torch.zeros(len(rows)), noise, (0,) * len(rows))


def pieces(batch: Batch, size: int) -> Iterator[Batch]:
    """At most so many samples at once (0: all), for where training fits, this shall fit, too."""
    for start in range(0, len(batch.ids), size or len(batch.ids)):
        end = start + (size or len(batch.ids))
        yield Batch(batch.task, *(part[start:end] for part in batch[1:]))


@torch.no_grad()
def validate(trainer: StageTrainer) -> dict[str, Validation]:
    """Every task so far, with the router being trained: what it forgets shows here."""
    found = {}
    for task, lessons in trainer.lessons.items():
        batch = held_out(lessons)
        losses, shares = [], 0.0
        for piece in pieces(batch, trainer.settings.micro):
            for time in TIMES:
                errors, routes = trainer.errors(piece._replace(times=torch.full((len(piece.ids),), time)))
                losses += errors.tolist()
            shares = shares + usage_of_all(routes.values(), trainer.newest + 1) * (len(piece.ids) / len(batch.ids))
        found[task] = Validation(float(np.mean(losses)), tuple(shares.tolist()))
    return found


@torch.no_grad()
def draw(trainer: StageTrainer, task: str, count: int = 4) -> tuple[Tensor, Batch]:
    """Latents (as the VAE gives them) that the bank draws for held-out lessons of a task."""
    batch = held_out(trainer.lessons[task], count)
    return torch.cat([_drawn(trainer, piece) for piece in pieces(batch, trainer.settings.micro)]), batch


def _drawn(trainer: StageTrainer, batch: Batch) -> Tensor:
    source, context, pooled, noise = (
        part.to(trainer.device) for part in (batch.source, batch.context, batch.pooled, batch.noise)
    )
    rows, columns = token_grid(noise, trainer.host.flux.patch_size)
    steps = make_timesteps(trainer.settings.sample_steps, rows * columns)
    routing, settings = trainer.routing(batch.task), SamplingSettings(steps, trainer.settings.guidance)
    return sample_latents(trainer.host, trainer.left, routing, source, noise, EncodedPrompt(context, pooled), settings)


def sample_grid(trainer: StageTrainer, encoders) -> np.ndarray:
    """A row a task so far: source, drawn and target, side by side, for a few lessons."""
    rows = []
    for task in trainer.lessons:
        drawn, batch = draw(trainer, task)
        source, made, target = (encoders.decode(part) for part in (batch.source, drawn, batch.target))
        cells = [fit(picture, made.shape[1:3]) for trio in zip(source, made, target) for picture in trio]
        rows.append(np.concatenate(cells, axis=1))
    return stacked(rows)


def stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    """One below the other; narrow ones get black behind."""
    widest = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0))) for row in rows])


def fit(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    return picture if picture.shape[:2] == size else np.array(Image.fromarray(picture).resize(size[::-1]))
