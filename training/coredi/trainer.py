"""Training beside an encoder's features of the target: an option of a stage, by default off.

auxiliary   the picture's last tokens tell the features; nothing of it at inference (as REPA)
self        and a first, blind pass tells them to a second one, which reads them as tokens (as DINO Forcing)
coredi      noised features are denoised along with the picture, in a space z = BN(z0 P) that learns with it (CoReDi)

    L = L_task + L_veteran + weight * smooth-l1(told, sg[z]) + Ortho(P) + Cov(z)

P learns by what its tokens do for the picture and for themselves, never by making the target easier. What is left when
the stage is over is a bank as any other, and beside it the few tensors that draw features along (prw/features.py). Experts
see features of their own task only, as U_t does.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...prw.bank.bank import Bank
from ...prw.coredi.feature_stream import FeatureStream, SourceRoutes, record_last_tokens
from ...prw.coredi.features import (
    FEATURE_STATES,
    Features,
    FeaturesInfo,
    embed_features,
    list_shapes,
    make_pooling_matrix,
    predict_features,
)
from ...prw.flux.inputs import FluxInputs
from ...prw.positions import token_grid
from ..batch import Batch
from ..checkpoint.checkpoints import TrainingError
from ..distributed import ranks
from ..loop import Given, StageTrainer
from ..objective import noised
from ..trainer import Group, Step, Work
from .projection import Projection, effective_rank, overlap

UNREAD = {"auxiliary": 1.0, "self": 0.1, "coredi": 0.2}
"""Share of samples whose picture reads no tokens, so that it can do without them, too."""
GIVEN = 0.05
"""Share of samples that are told the true features instead of guessed ones (self)."""
TYPICAL = 4096
"""MemoryDataset from which the principal components are taken."""
SMOOTH = 0.95
LEAST_RANK, LEAST_LOSS, LEAST_OVERLAP = 0.5, 0.05, 0.3
"""Shares: of the channels, of the loss of one who knows only the mean, of the principal components' space."""
PREFIX, PROJECTION = "features.", "projection/"


class Draw(NamedTuple):
    """What is random about a sample's features."""

    chance: Tensor
    noise: Tensor


class FeatureTrainer(StageTrainer):
    def __init__(self, work: Work, bank: Bank, features: Tensor):
        """`features` are those of the stage's own lessons (count, tokens, wide)."""
        host, stage, own = work.host, work.stage, work.lessons[work.stage.task]
        taught = features[: own.train_count][:TYPICAL].float()
        found = Projection.of(taught, work.settings.feature_size)
        fresh = fresh_tensors(found, host.flux.params.hidden_size, stage.features, work.seed + work.number)
        super().__init__(work, bank, [Group(fresh, work.settings.rate)])
        self.projection, self.features = found.to(self.device), features
        ranks.spread(vars(self.projection).values())  # no two machines' eigenvectors need be the same
        found = self.projection.to(taught.device)
        blind = found.narrow(taught, found.start)
        self.blind = float(F.smooth_l1_loss(torch.zeros_like(blind), blind))
        size = token_grid(own.rows([0]).target, host.flux.patch_size)
        self.pool = make_pooling_matrix(*size).to(self.device)
        self.smoothed, self.heard = self.blind, torch.zeros(2, device=self.device)

    def _gradients(self) -> Tensor:
        self.heard.zero_()
        return torch.cat((super()._gradients(), self.heard))

    def _told(self, sums: Tensor, norm: float) -> Step:
        step = super()._told(sums[:-2], norm)
        loss, counted = ranks.total(sums[-2:], self.device).tolist()
        besides = {}
        if counted:
            besides["features"] = loss / counted
            self.smoothed = SMOOTH * self.smoothed + (1 - SMOOTH) * loss / counted
        if self.stage.features == "coredi":
            p = self.trained[f"{PREFIX}projection"]
            besides["rank"] = effective_rank(self.projection.covariance(p))
            self._refuse_collapsed(p, besides["rank"])
        return replace(step, besides=besides)

    def _refuse_collapsed(self, p: Tensor, rank: float) -> None:
        most = p.shape[1]
        kept, left = overlap(p, self.projection.start), self.smoothed / self.blind
        for what, found, least in (
            ("effective rank", rank, LEAST_RANK * most),
            ("loss, as a share of a blind guess's", left, LEAST_LOSS),
            ("overlap with the principal components", kept, LEAST_OVERLAP),
        ):
            if not found >= least:
                raise TrainingError(
                    f"The features of {self.stage.name} have collapsed at iteration {self.iteration}: their {what} is "
                    f'{found:.3g}, expected {least:g} or more: train the stage with features = "auxiliary", which cannot.'
                )

    def taught(self, batch: Batch, noise) -> tuple[Tensor, dict, Tensor]:
        if not self._counts(batch):
            return super().taught(batch, noise)
        given, own = self.given(batch, noise), self._own_tensors()
        p = own.get("projection", self.projection.start)
        small = self.projection.narrow(self.features[list(batch.rows)].float().to(self.device), p)
        draw = drawn(batch, small)
        read = draw.chance >= UNREAD[self.stage.features]
        found, told, counts = WAYS[self.stage.features](self, given, small, draw, read)
        each = F.smooth_l1_loss(told, small.detach(), reduction="none").mean((1, 2)) * counts
        self.heard += torch.stack((each.detach().sum(), counts.sum()))
        beside = self.settings.feature_weight * each.sum()
        if "projection" in own:
            beside = beside + len(batch.ids) * self.projection.penalty(p)
        return self.error(found, given), given.woven.routes, beside / self.stage.batch

    def _own_tensors(self) -> dict[str, Tensor]:
        return {name.removeprefix(PREFIX): t for name, t in self.trained.items() if name.startswith(PREFIX)}

    def run(self, given: Given, stream: FeatureStream | None = None) -> tuple[Tensor, Tensor]:
        """The velocity, and what the picture's last tokens tell of its features."""
        with record_last_tokens(self.host.flux) as heard:
            found = self.found(given, () if stream is None else (stream,))
        return found, self.pool @ self.tell(heard[0])

    def tell(self, tokens: Tensor) -> Tensor:
        return predict_features(self._own_tensors(), tokens)

    def stream(self, given: Given, z: Tensor, read: Tensor) -> FeatureStream:
        routing, h = self.routing(self.stage.task), embed_features(self._own_tensors(), z)
        guidance = torch.full_like(given.times, self.settings.guidance)
        inputs = FluxInputs(given.x, given.times, given.context, given.pooled, guidance)
        routes = SourceRoutes(self.bank, routing, given.woven.routes)
        return FeatureStream(self.host, routes, h, inputs, None if read.all() else read)

    def besides(self) -> Features | None:
        """What drawing them along needs."""
        way = self.stage.features
        if way not in FEATURE_STATES:
            return None
        left = {name.removeprefix(PREFIX): t for name, t in (self.average or self.trained).items()}
        info = FeaturesInfo(self.bank.info.base, way, self.stage.task, self.settings.feature_size)
        return Features(info, {name: left[name].detach().cpu().clone() for name in list_shapes(info)})

    def state(self) -> tuple[dict[str, Tensor], dict]:
        tensors, state = super().state()
        known = {f"{PROJECTION}{name}": tensor for name, tensor in vars(self.projection).items()}
        return {**tensors, **known}, {**state, "features": self.smoothed}

    def load(self, tensors: Mapping[str, Tensor], state: dict) -> None:
        super().load(tensors, state)
        self.smoothed = state["features"]
        # checkpoints of old had none
        known = {name: tensors.get(f"{PROJECTION}{name}", own) for name, own in vars(self.projection).items()}
        self.projection = Projection(**known).to(self.device)


def auxiliary(trainer: FeatureTrainer, given: Given, small: Tensor, draw: Draw, read: Tensor):
    found, told = trainer.run(given)
    return found, told, torch.ones_like(draw.chance)


def self_conditioned(trainer: FeatureTrainer, given: Given, small: Tensor, draw: Draw, read: Tensor):
    with torch.no_grad():
        _, guess = trainer.run(given)
    true = draw.chance >= 1 - GIVEN
    found, told = trainer.run(given, trainer.stream(given, torch.where(true[:, None, None], small, guess), read))
    return found, told, torch.ones_like(draw.chance)


def coevolving(trainer: FeatureTrainer, given: Given, small: Tensor, draw: Draw, read: Tensor):
    stream = trainer.stream(given, noised(small, draw.noise, given.times), read)
    found, _ = trainer.run(given, stream)
    return found, trainer.tell(stream.last_tokens), read.float()


WAYS: dict[str, Callable] = {"auxiliary": auxiliary, "self": self_conditioned, "coredi": coevolving}
"""The velocity, the features that were told, and which samples count: (batch, ...) each."""


def drawn(batch: Batch, small: Tensor) -> Draw:
    """From the samples' own seeds, apart from what lessons and router draw of them."""
    generators = [torch.Generator().manual_seed(seed + 2) for seed in batch.seeds]
    chance = torch.stack([torch.rand((), generator=each) for each in generators])
    noise = torch.stack([torch.randn(small.shape[1:], generator=each) for each in generators])
    return Draw(chance.to(small.device), noise.to(small))


def fresh_tensors(projection: Projection, dim: int, way: str, seed: int) -> dict[str, Tensor]:
    """What is trained besides experts; the head tells the mean at first."""
    narrow, generator = projection.start.shape[1], torch.Generator().manual_seed(seed)
    tensors = {
        "norm.weight": torch.ones(dim),
        "norm.bias": torch.zeros(dim),
        "head.weight": torch.zeros(narrow, dim),
        "head.bias": torch.zeros(narrow),
    }
    if way != "auxiliary":
        tensors["in.weight"] = torch.randn(dim, narrow, generator=generator) * narrow**-0.5
        tensors["in.kind"] = torch.zeros(dim)
    if way == "coredi":
        tensors["projection"] = projection.start.clone()
    return {PREFIX + name: tensor for name, tensor in tensors.items()}
