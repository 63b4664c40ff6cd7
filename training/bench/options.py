"""What the other systems cost, each against its twin that has it not: an iteration with an encoder's features, one with
vectors for every photo, a sampler step that reads features, and one of two branches.

Two branches last for a share of the steps, so a picture costs 1 + share * (ratio - 1) of a plain one.
"""

from collections.abc import Callable
from dataclasses import replace

import torch

from ...prw.config import Base
from ...prw.coredi.features import CELLS
from ...prw.embedded_host import EmbeddedHost
from ...prw.personalization.concept import ConceptInfo
from ...prw.personalization.dual_branch import Blend
from ...prw.personalization.marked_prompt import Words
from ..coredi.trainer import WAYS, FeatureTrainer
from ..experiments.dual_branch import Branch, drawn_beside
from ..forward import SPARE_EMBEDDED
from ..recipes.curriculum import Settings, Stage
from ..recipes.subject import OWN, Subject
from ..subject.trainer import SubjectTrainer, fresh_concept
from ..trainer import Work
from .inference import Shapes, device_name, interleaved
from .training import a_trainer, random_lessons

WIDE = 768
"""Channels of DINOv2's base model."""
PHOTOS = 4


def options(shapes: Shapes, dtype: torch.dtype, device: str, repeats: int, batch: int) -> dict:
    host = EmbeddedHost(shapes.flux(dtype, device), dtype)
    rows = {
        "iteration": {"plain": a_trainer(shapes, host, batch).step, **_with_features(shapes, host, batch)},
        "subject": {"plain": _subject(shapes, host, batch, ico=False), "ico": _subject(shapes, host, batch, ico=True)},
        "source_step": {"plain": _reading(shapes, host, False), "features_read": _reading(shapes, host, True)},
        "sampler_step": {"plain": _branches(shapes, host, 0.0), "two_branches": _branches(shapes, host, 1.0)},
    }
    seconds = {name: interleaved(steps, repeats, device) for name, steps in rows.items()}
    ratios = {
        f"{way}_over_plain": found[way] / found["plain"]
        for found in seconds.values()
        for way in found
        if way != "plain"
    }
    about = dict(batch=batch, device=device_name(device), dtype=str(dtype).removeprefix("torch."))
    return {**ratios, **seconds, **about, "torch": torch.__version__, "shapes": vars(shapes)}


def _with_features(shapes: Shapes, host: EmbeddedHost, batch: int) -> dict[str, Callable[[], object]]:
    return {way: _trainer(shapes, host, batch, way).step for way in WAYS}


def _trainer(shapes: Shapes, host: EmbeddedHost, batch: int, way: str) -> FeatureTrainer:
    cells = min(CELLS, shapes.target // 16) ** 2 + 1
    features = torch.randn(4 * batch, cells, WIDE, generator=torch.Generator().manual_seed(4))

    def kind(work: Work, bank) -> FeatureTrainer:
        return FeatureTrainer(replace(work, stage=replace(work.stage, features=way)), bank, features)

    return a_trainer(shapes, host, batch, kind)


def _reading(shapes: Shapes, host: EmbeddedHost, read: bool) -> Callable[[], object]:
    """A step of one picture, whose source was woven before."""
    trainer = _trainer(shapes, host, 1, "coredi")
    (batch,) = trainer.batches()
    with torch.no_grad():
        given = trainer.given(batch)
    z = torch.zeros(1, len(trainer.pool), trainer.settings.feature_size, device=trainer.device)

    @torch.no_grad()
    def step() -> torch.Tensor:
        return trainer.found(given, [trainer.stream(given, z, torch.ones(1, dtype=torch.bool))] if read else [])

    return step


def _subject(shapes: Shapes, host: EmbeddedHost, batch: int, ico: bool) -> Callable[[], object]:
    lessons, subject = random_lessons(shapes, host.flux, OWN, PHOTOS), Subject(ico=ico)
    width = host.flux.params.context_in_dim
    settings = Settings(text_drop=0.0, validate_every=0, sample_every=0)
    concept = fresh_concept(ConceptInfo(Base.of(host.flux), width=width), torch.randn(subject.tokens, width), 0)
    empty = lessons.context[:1], lessons.pooled[:1]
    work = Work(host, Stage(OWN, OWN, 10**6, batch), 0, settings, {OWN: lessons}, empty, 0, SPARE_EMBEDDED)
    return SubjectTrainer(work, concept, torch.randn(PHOTOS, subject.contexts, width), subject).step


def _branches(shapes: Shapes, host: EmbeddedHost, share: float) -> Callable[[], object]:
    lessons, like = random_lessons(shapes, host.flux, OWN, 2), host.flux.txt_in.weight
    words = Words((3,), min(12, shapes.text))
    one, other = (
        Branch(tuple(part[i : i + 1].to(like) for part in (lessons.context, lessons.pooled)), words, noise.to(like))
        for i, noise in enumerate(lessons.target.split(1))
    )
    blend = Blend(end=share, last=2 * (shapes.double + shapes.single) // 3 - 1)
    return lambda: drawn_beside(host, one, other, (1.0, 0.9), blend)
