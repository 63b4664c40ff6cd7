"""One's own subject on a host's FLUX: what the node asks for."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ...prw.bank.bank import Bank
from ...prw.bank.edit import split
from ...prw.personalization.concept import Concept
from ..data.encoded.dataset import MemoryDataset
from ..data.geometry import centre_crop
from ..listener import Listener
from ..monitor.log import Log
from ..monitor.samples import Samples
from ..recipes.curriculum import Settings, Stage
from ..recipes.subject import OWN, PRIOR, SubjectRecipe
from ..subject.dataset import encode_photos, encode_prior
from ..subject.run import SubjectRun
from .run import after, refuse_text, train_on
from .training_data import HostEncoders, TrainingData
from .training_host import INTERRUPTS, TrainingHost, spare

EXPERT = "expert"
"""A subject's expert in its run's folder: the folder where it is trained, and its file."""


def subject_lessons(
    encoders: HostEncoders, own: Sequence[np.ndarray], others: Sequence[np.ndarray], recipe: SubjectRecipe
) -> dict[str, MemoryDataset]:
    """Pictures uint8 (height, width, 3) of any size: as much as a square in their middle shows."""
    subject, side = recipe.subject, recipe.curriculum.settings.resolution
    fit = [
        {f"{i + 1}": centre_crop(picture.shape[:2], (side, side)).picture(picture) for i, picture in enumerate(some)}
        for some in (own, others)
    ]
    found: dict[str, MemoryDataset] = {OWN: encode_photos(encoders, fit[0], subject)}
    if recipe.stage.replay:
        found[PRIOR] = encode_prior(encoders, {name: (picture, subject.told) for name, picture in fit[1].items()})
    return found


def train_subject_on(
    model,
    encoders: HostEncoders,
    lessons: dict[str, MemoryDataset],
    recipe: SubjectRecipe,
    out: Path,
    seed: int = 0,
    listeners: Sequence[Listener] = (),
) -> Concept:
    """In a folder where it can go on; what is done is read from there."""
    host, settings, own = TrainingHost(model), recipe.curriculum.settings, lessons[OWN].samples
    refuse_text(host, own)
    tokens = own.target.shape[-2] * own.target.shape[-1] // 4 + own.context.shape[1]
    memory = host.memory(tokens, settings.micro or recipe.stage.batch, settings.rank, settings.checkpointing)
    encoders = replace(encoders, after=host.pushed_out)
    options = dict(
        listeners=(Log(out), Samples(out), *listeners), checkpointing_options=spare(host.flux), interrupts=INTERRUPTS
    )
    run = SubjectRun(host, recipe, lessons, encoders, out, seed, **options)
    with torch.inference_mode(False):
        if run.path.exists():
            return run.train()
    with host.training(memory):
        return run.train()


def train_expert_on(
    model,
    encoders: HostEncoders,
    pairs: MemoryDataset,
    bank: Bank,
    stage: Stage,
    settings: Settings,
    out: Path,
    seed: int = 0,
    listeners: Sequence[Listener] = (),
) -> Bank:
    """The bank with one more expert; alone, with its router, it is kept beside the run's concept."""
    data = TrainingData(encoders, {stage.task: pairs})
    bank = train_on(model, data, after(bank, stage, settings), out / EXPERT, seed, bank, stage.name, listeners)
    split(bank, stage.name).save(out / f"{EXPERT}.safetensors")
    return bank
