"""A user's own subject on a host's FLUX: what CoLoGen Train Subject calls."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ...prw.bank.bank import Bank
from ...prw.bank.edit import split
from ...prw.personalization.concept import Concept
from ..data.encoded.dataset import MemoryDataset
from ..data.geometry import centre_crop
from ..recipes.curriculum import Settings, Stage
from ..recipes.subject import OWN, PRIOR, SubjectRecipe
from ..subject.dataset import encode_photos, encode_prior
from ..subject.run import SubjectRun
from .run import NodeRun, extend_curriculum, train_curriculum
from .training_data import HostEncoders, TrainingData
from .training_host import TrainingHost

EXPERT = "expert"
"""A subject's expert in its run's folder: the folder where it is trained, and its file."""


def make_subject_datasets(
    encoders: HostEncoders, own: Sequence[np.ndarray], others: Sequence[np.ndarray], recipe: SubjectRecipe
) -> dict[str, MemoryDataset]:
    """Makes datasets of the subject's photos, and of its class's if the recipe wants some.

    Pictures are uint8 (height, width, 3) of any size; a square in their middle is taken.
    """
    subject, side = recipe.subject, recipe.curriculum.settings.resolution
    cropped = [
        {
            f"{i + 1}": centre_crop(picture.shape[:2], (side, side)).picture(picture)
            for i, picture in enumerate(pictures)
        }
        for pictures in (own, others)
    ]
    datasets: dict[str, MemoryDataset] = {OWN: encode_photos(encoders, cropped[0], subject)}
    if recipe.stage.replay:
        datasets[PRIOR] = encode_prior(
            encoders, {name: (picture, subject.prompt) for name, picture in cropped[1].items()}
        )
    return datasets


def train_concept(
    model, encoders: HostEncoders, datasets: dict[str, MemoryDataset], recipe: SubjectRecipe, run: NodeRun
) -> Concept:
    """Trains a concept on a MODEL, or reads it where the run is done."""
    host, settings, own = TrainingHost(model), recipe.curriculum.settings, datasets[OWN].samples
    host.check_samples(own)
    tokens, batch = host.count_tokens(own, [own.target]), settings.micro or recipe.stage.batch
    memory = host.estimate_memory(tokens, batch, settings.rank, settings.checkpointing)
    encoders = replace(encoders, after=host.mark_pushed_out)
    training = SubjectRun(host, recipe, datasets, encoders, **run.make_options(host))
    with torch.inference_mode(False):
        if training.is_finished(recipe.stage, 0):
            return training.train()
    with host.training(memory):
        return training.train()


def train_subject_expert(
    model, encoders: HostEncoders, pairs: MemoryDataset, bank: Bank, stage: Stage, settings: Settings, run: NodeRun
) -> Bank:
    """Trains one more expert of the bank; alone, with its router, it is saved beside the run's concept."""
    data, curriculum = TrainingData(encoders, {stage.task: pairs}), extend_curriculum(bank, stage, settings)
    bank = train_curriculum(model, data, curriculum, run._replace(out=run.out / EXPERT), bank, stage.name)
    split(bank, stage.name).save(run.out / f"{EXPERT}.safetensors")
    return bank
