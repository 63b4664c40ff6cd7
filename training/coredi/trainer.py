"""Training beside an encoder's features of the target: an option of a stage, by default off.

auxiliary   the picture's last tokens predict the features; nothing of it at inference (as REPA)
self        a first pass without them predicts features for a second one, which reads them as tokens (as DINO Forcing)
coredi      noised features are denoised along with the picture, in a space z = BN(z0 P) that learns with it (CoReDi)

    L = L_task + L_veteran + weight * distance(predicted, sg[z]) + Ortho(P) + Cov(z)

The distance is smooth-l1 (our choice) or, of coredi if the recipe says so, the mean squared error of z's velocity: the joint
diffusion of CoReDi's abstract. The head predicts z all the same, from which the velocity follows: (z_t - z) / t.

P learns by what its tokens do for the picture and for themselves, never by making the target easier. The stage leaves a
bank as any other, and beside it the few tensors that sampling with features needs (prw/coredi/features.py). Experts see
features of their own task only, as U_t does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...prw.bank.bank import Bank
from ...prw.coredi.feature_stream import FeatureStream, SourceExperts, record_last_tokens
from ...prw.coredi.features import (
    FEATURE_STATES,
    Features,
    FeaturesInfo,
    embed_features,
    list_shapes,
    make_pooling_matrix,
    predict_features,
)
from ...prw.positions import token_grid
from ..batch import Batch, NoisedBatch
from ..checkpoint.checkpoints import TrainingError
from ..distributed import ranks
from ..forward import predict_velocity
from ..objective import add_noise
from ..optimizers import ParamGroup
from ..stage_context import IterationResult, StageContext
from ..stage_trainer import StageTrainer
from .projection import Projection, effective_rank, overlap

UNREAD = {"auxiliary": 1.0, "self": 0.1, "coredi": 0.2}
"""Share of samples whose picture reads no tokens, so that it can do without them, too."""
TRUE_FEATURES = 0.05
"""Share of samples that read the true features instead of predicted ones (self)."""
PCA_SAMPLES = 4096
"""Samples, at most, from which the principal components are computed."""
MIN_TIME = 0.05
"""Our choice: nearer to the picture a velocity counts as here, or a few samples would drown all others."""
SMOOTHING = 0.95
"""Share of the running feature loss that stays from one iteration to the next."""
MIN_RANK, MIN_LOSS, MIN_OVERLAP = 0.5, 0.05, 0.3
"""Shares: of the channels, of the loss of predicting the mean, of the principal components' space."""
PREFIX, PROJECTION = "features.", "projection/"


class FeatureNoise(NamedTuple):
    """What is random about a batch's features."""

    uniform: Tensor
    """(batch,), in 0..1: decides whether a sample reads tokens, and which."""
    noise: Tensor
    """(batch, tokens, channels)"""


class FeatureTrainer(StageTrainer):
    """Trains a stage's expert and router, and beside them a head that predicts features and what tokens of them need."""

    def __init__(self, context: StageContext, bank: Bank, features: Tensor):
        """`features` are those of the stage's own samples (count, tokens, channels)."""
        host, stage, dataset = context.host, context.stage, context.datasets[context.stage.task]
        typical = features[: dataset.train_count][:PCA_SAMPLES].float()
        projection = Projection.fit(typical, context.settings.feature_size)
        tensors = init_tensors(projection, host.flux.params.hidden_size, stage.features, context.stage_seed)
        super().__init__(context, bank, [ParamGroup(tensors, context.settings.rate)])
        self.projection, self.features = projection.to(self.device), features
        ranks.broadcast(vars(self.projection).values())  # no two machines' eigenvectors need be the same
        projection = self.projection.to(typical.device)
        z = projection.project(typical, projection.start)
        self.mean_loss = float(F.smooth_l1_loss(torch.zeros_like(z), z))
        """The loss of predicting the mean."""
        size = token_grid(dataset.read_samples([0]).target, host.flux.patch_size)
        self.pool = make_pooling_matrix(*size).to(self.device)
        self.smoothed, self.feature_sums = self.mean_loss, torch.zeros(2, device=self.device)

    def prepare(self, batches: Sequence[Batch]) -> None:
        self.feature_sums.zero_()
        super().prepare(batches)

    def summarize(self, norm: float) -> IterationResult:
        result = super().summarize(norm)
        loss, count = ranks.sum_over_ranks(self.feature_sums, self.device).tolist()
        extra = {}
        if count:
            extra["features"] = loss / count
            self.smoothed = SMOOTHING * self.smoothed + (1 - SMOOTHING) * loss / count
        if self.stage.features == "coredi":
            p = self.trained[f"{PREFIX}projection"]
            extra["rank"] = effective_rank(self.projection.covariance(p))
            self._check_collapse(p, extra["rank"])
        return replace(result, extra=extra)

    def _check_collapse(self, p: Tensor, rank: float) -> None:
        kept, loss = overlap(p, self.projection.start), self.smoothed / self.mean_loss
        for what, value, low in (
            ("effective rank", rank, MIN_RANK * p.shape[1]),
            ("loss, as a share of a blind guess's", loss, MIN_LOSS),
            ("overlap with the principal components", kept, MIN_OVERLAP),
        ):
            if not value >= low:
                raise TrainingError(
                    f"The features of {self.stage.name} have collapsed at iteration {self.iteration}: their {what} is "
                    f'{value:.3g}, expected {low:g} or more: train the stage with features = "auxiliary", which cannot.'
                )

    def predict(self, batch: Batch, noised: NoisedBatch) -> tuple[Tensor, Tensor | float]:
        """Predicts FLUX's velocity, and the losses of the features; replayed tasks have none."""
        if batch.task != self.stage.task:
            return super().predict(batch, noised)
        tensors = self._feature_tensors()
        p = tensors.get("projection", self.projection.start)
        z = self.projection.project(self.features[list(batch.rows)].float().to(self.device), p)
        drawn = draw_feature_noise(batch, z)
        reads = drawn.uniform >= UNREAD[self.stage.features]
        velocity, predicted, counts = FORWARD_BY_WAY[self.stage.features](self, noised, z, drawn, reads)
        losses = F.smooth_l1_loss(predicted, z.detach(), reduction="none").mean((1, 2)) * counts
        # logged and watched, whatever is trained
        self.feature_sums += torch.stack((losses.detach().sum(), counts.sum()))
        if self.stage.features == "coredi" and self.settings.feature_loss == "velocity":
            losses = measure_velocity_error(predicted, z.detach(), noised.inputs.times) * counts
        loss = self.settings.feature_weight * losses.sum()
        if "projection" in tensors:
            loss = loss + len(batch.ids) * self.projection.penalty(p)
        return velocity, loss / self.stage.batch

    def _feature_tensors(self) -> dict[str, Tensor]:
        return {name.removeprefix(PREFIX): t for name, t in self.trained.items() if name.startswith(PREFIX)}

    def run_flux(self, noised: NoisedBatch, stream: FeatureStream | None = None) -> tuple[Tensor, Tensor]:
        """Gives the velocity, and the features that the picture's last tokens predict."""
        with record_last_tokens(self.host.flux) as tokens:
            source = noised.source.with_patches([] if stream is None else [stream])
            velocity = predict_velocity(self.host, source, noised.inputs)
        return velocity, self.pool @ self.predict_features(tokens[0])

    def predict_features(self, tokens: Tensor) -> Tensor:
        return predict_features(self._feature_tensors(), tokens)

    def make_stream(self, noised: NoisedBatch, z: Tensor, reads: Tensor) -> FeatureStream:
        """Makes tokens of features z for FLUX to read; `reads` says which samples do."""
        experts = SourceExperts(self.bank, self.make_routing(self.stage.task), noised.source.routes)
        h = embed_features(self._feature_tensors(), z)
        return FeatureStream(self.host, experts, h, noised.inputs, None if reads.all() else reads)

    def export_features(self) -> Features | None:
        """Gives what sampling with features needs."""
        way = self.stage.features
        if way not in FEATURE_STATES:
            return None
        tensors = {name.removeprefix(PREFIX): t for name, t in self.weights.exported.items()}
        info = FeaturesInfo(self.bank.info.base, way, self.stage.task, self.settings.feature_size)
        return Features(info, {name: tensors[name].detach().cpu().clone() for name in list_shapes(info)})

    def state(self) -> tuple[dict[str, Tensor], dict]:
        tensors, state = super().state()
        projection = {f"{PROJECTION}{name}": tensor for name, tensor in vars(self.projection).items()}
        return {**tensors, **projection}, {**state, "features": self.smoothed}

    def load(self, tensors: Mapping[str, Tensor], state: dict) -> None:
        super().load(tensors, state)
        self.smoothed = state["features"]
        # old checkpoints have none
        projection = {name: tensors.get(f"{PROJECTION}{name}", own) for name, own in vars(self.projection).items()}
        self.projection = Projection(**projection).to(self.device)


Prediction = tuple[Tensor, Tensor, Tensor]
"""The velocity, the predicted features, and which samples count: (batch, ...) each."""


def run_auxiliary(
    trainer: FeatureTrainer, noised: NoisedBatch, z: Tensor, drawn: FeatureNoise, reads: Tensor
) -> Prediction:
    velocity, predicted = trainer.run_flux(noised)
    return velocity, predicted, torch.ones_like(drawn.uniform)


def run_self_conditioned(
    trainer: FeatureTrainer, noised: NoisedBatch, z: Tensor, drawn: FeatureNoise, reads: Tensor
) -> Prediction:
    with torch.no_grad():
        _, first = trainer.run_flux(noised)
    is_true = drawn.uniform >= 1 - TRUE_FEATURES
    stream = trainer.make_stream(noised, torch.where(is_true[:, None, None], z, first), reads)
    velocity, predicted = trainer.run_flux(noised, stream)
    return velocity, predicted, torch.ones_like(drawn.uniform)


def run_coevolving(
    trainer: FeatureTrainer, noised: NoisedBatch, z: Tensor, drawn: FeatureNoise, reads: Tensor
) -> Prediction:
    stream = trainer.make_stream(noised, add_noise(z, drawn.noise, noised.inputs.times), reads)
    velocity, _ = trainer.run_flux(noised, stream)
    assert stream.last_tokens is not None
    return velocity, trainer.predict_features(stream.last_tokens), reads.float()


FORWARD_BY_WAY: dict[str, Callable[..., Prediction]] = {
    "auxiliary": run_auxiliary,
    "self": run_self_conditioned,
    "coredi": run_coevolving,
}
"""By the way that features are learned: a stage's `features`, FeaturesInfo's `way`."""


def measure_velocity_error(predicted: Tensor, z: Tensor, times: Tensor) -> Tensor:
    """Measures the squared error of the velocity (z_t - z) / t that predicted features imply: that of z,
    over t squared."""
    return (predicted - z).square().mean((1, 2)) / times.clamp(min=MIN_TIME).square()


def draw_feature_noise(batch: Batch, z: Tensor) -> FeatureNoise:
    """Draws from the samples' own seeds, apart from what batch and router draw from them."""
    generators = [torch.Generator().manual_seed(seed + 2) for seed in batch.seeds]
    uniform = torch.stack([torch.rand((), generator=generator) for generator in generators])
    noise = torch.stack([torch.randn(z.shape[1:], generator=generator) for generator in generators])
    return FeatureNoise(uniform.to(z.device), noise.to(z))


def init_tensors(projection: Projection, dim: int, way: str, seed: int) -> dict[str, Tensor]:
    """Makes what is trained beside the expert; the head predicts the mean at first."""
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
