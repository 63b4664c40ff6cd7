"""One's own subject as one more expert: a column of a router on a bank that is there, and the low-rank pairs behind it.

The concept needs no picture to draw from; this reads one. Every photo is the source of every other, and the expert begins
as the bank's own for subjects, so that few iterations do. It is an ordinary stage after the bank's (add_expert.py),
which leaves the bank's older experts and routers as they are.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations

import torch

from ...prw.bank.bank import Bank
from ...prw.config import ExpertInfo
from ..add_expert import check_untrained
from ..data.encoded.dataset import MemoryDataset
from ..data.encoded.samples import EncodedSamples
from ..encoders.protocol import Encoders
from ..recipes.curriculum import SUBJECT, Settings, Stage
from ..recipes.subject import Subject, SubjectRecipe

ROUTER_RATE = 10.0
"""In units of the expert's rate (our choice)."""


def make_photo_pairs(encoders: Encoders, photos: EncodedSamples, subject: Subject) -> MemoryDataset:
    """Pairs every photo with every other as its source; the prompt is the caption,
    for there is no concept beside its noun."""
    if len(photos) < 2:
        raise ValueError(
            "The subject has 1 photo, expected 2 or more, for an expert draws each from another: give more, or leave the "
            "experts open."
        )
    sources, targets = (list(part) for part in zip(*permutations(range(len(photos)), 2)))
    with torch.no_grad():
        texts = [part.expand(len(targets), *part.shape[1:]) for part in encoders.encode_prompts([subject.prompt])]
    ids = tuple(f"{photos.ids[target]} from {photos.ids[source]}" for source, target in zip(sources, targets))
    prompts = (subject.prompt,) * len(ids)
    samples = EncodedSamples(ids, prompts, photos.target[targets], photos.target[sources], *texts)
    return MemoryDataset(SUBJECT, samples, val_count=0)


def make_expert_stage(recipe: SubjectRecipe, bank: Bank, name: str) -> tuple[Stage, Settings]:
    """Makes a stage as long as the concept's; an expert that it starts as decides its rank."""
    start, settings = find_start(bank.info.experts), recipe.curriculum.settings
    if start:
        old = bank.info.experts[start]
        settings = replace(settings, rank=old.rank, alpha=old.alpha)
    stage = Stage(
        name=make_expert_name(name),
        task=SUBJECT,
        iterations=recipe.stage.iterations,
        batch=recipe.stage.batch,
        start=start,
        parent=bank.info.experts[start].parent if start else "",
    )
    check_untrained(bank, stage)  # now, not when the concept is done
    return stage, replace(settings, router_rate=ROUTER_RATE * settings.rate)


def find_start(experts: Mapping[str, ExpertInfo]) -> str:
    """Finds the last expert for subjects that a stage can start as; empty: there is none."""
    fitting = [
        name
        for name, expert in experts.items()
        if expert.task == SUBJECT and dict(expert.targets) == {"k": "all", "v": "all"}
    ]
    return fitting[-1] if fitting else ""


def make_expert_name(name: str) -> str:
    """Makes an expert's name of a run's; a name in another alphabet becomes a hash of it."""
    last = name.rsplit("/", 1)[-1]
    cleaned = re.sub(r"[^A-Za-z0-9_-]", "_", last)
    return (
        cleaned[:64]
        if last.isascii()
        else f"{cleaned[:57]}_{hashlib.blake2b(last.encode(), digest_size=3).hexdigest()}"
    )
