"""One's own subject as one more expert: a column of a router on a bank that is there, and the low-rank pairs behind it.

The concept needs no picture to draw from; this reads one. Every photo is the source of every other, and the expert begins
as the bank's own for subjects, so that few iterations do. It is an ordinary stage after the bank's (growing.py), of
which the bank's older experts and routers feel nothing.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations

import torch

from ...prw.bank.bank import Bank
from ...prw.config import ExpertInfo
from ..add_expert import refuse_trained
from ..data.encoded.dataset import MemoryDataset
from ..data.encoded.samples import EncodedSamples
from ..encoders.protocol import Encoders
from ..recipes.curriculum import SUBJECT, Settings, Stage
from ..recipes.subject import Subject, SubjectRecipe

STEADY = 10.0
"""The router's rate, in units of the expert's."""


def photo_pairs(encoders: Encoders, photos: EncodedSamples, subject: Subject) -> MemoryDataset:
    """Each told by the caption, for there is no concept beside its noun."""
    if len(photos) < 2:
        raise ValueError(
            "The subject has 1 photo, expected 2 or more, for an expert draws each from another: give more, or leave the "
            "experts open."
        )
    sources, targets = (list(part) for part in zip(*permutations(range(len(photos)), 2)))
    with torch.no_grad():
        texts = [part.expand(len(targets), *part.shape[1:]) for part in encoders.encode_prompts([subject.told])]
    ids = tuple(f"{photos.ids[target]} from {photos.ids[source]}" for source, target in zip(sources, targets))
    prompts = (subject.told,) * len(ids)
    samples = EncodedSamples(ids, prompts, photos.target[targets], photos.target[sources], *texts)
    return MemoryDataset(SUBJECT, samples, val_count=0)


def expert_stage(recipe: SubjectRecipe, bank: Bank, name: str) -> tuple[Stage, Settings]:
    """As long as the concept's; an expert that it starts as decides its size."""
    start, settings = beginning(bank.info.experts), recipe.curriculum.settings
    if start:
        old = bank.info.experts[start]
        settings = replace(settings, rank=old.rank, alpha=old.alpha)
    stage = Stage(
        name=plain(name), task=SUBJECT, iterations=recipe.stage.iterations, batch=recipe.stage.batch, start=start
    )
    refuse_trained(bank, stage)  # now, not when the concept is done
    return stage, replace(settings, router_rate=STEADY * settings.rate)


def beginning(experts: Mapping[str, ExpertInfo]) -> str:
    """The last one for subjects that a stage can begin as; empty: there is none."""
    fitting = [
        name
        for name, expert in experts.items()
        if expert.task == SUBJECT and dict(expert.targets) == {"k": "all", "v": "all"}
    ]
    return fitting[-1] if fitting else ""


def plain(name: str) -> str:
    """A run's name as an expert's; what other alphabets say becomes a few letters that tell two of them apart."""
    last = name.rsplit("/", 1)[-1]
    found = re.sub(r"[^A-Za-z0-9_-]", "_", last)
    return found[:64] if last.isascii() else f"{found[:57]}_{hashlib.blake2b(last.encode(), digest_size=3).hexdigest()}"
