"""Fine-tuning one's own subject: the concept's vectors and a LoRA, and for each photo vectors of its own.

Image-specific context optimisation (ICO; Jin et al., ECCV 2024): a photo's prompt is [photo's vectors] [concept] noun, so
that its place, pose and light need not go into the concept; the photo's vectors learn fastest and are thrown away. Without
ICO this is plain fine-tuning: the caption, and the concept beside its noun.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import Tensor

from ...prw.flux.inputs import FluxInputs
from ...prw.personalization.concept import TOKENS, Concept, ConceptInfo, insert_vectors, list_shapes, make_residuals
from ...prw.personalization.low_rank_patch import apply_low_rank
from ...prw.router import Route
from ..batch import Batch
from ..distributed import ranks
from ..forward import predict_velocity, skip_source
from ..objective import add_noise, task_loss
from ..optimizers import ParamGroup
from ..recipes.subject import OWN, Subject
from ..stage_context import IterationResult, StageContext
from ..trainer import Trainer

CONTEXTS = "contexts"
"""(photos, vectors, width)"""


def init_concept(info: ConceptInfo, vectors: Tensor, seed: int) -> Concept:
    """Makes a concept whose weights add nothing yet."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {TOKENS: vectors}
    for name, shape in list_shapes(info).items():
        if name != TOKENS:
            size = shape[1] ** -0.5 if ".lora_A." in name else 0.0
            tensors[name] = torch.randn(shape, generator=generator) * size
    return Concept(info, tensors)


class SubjectTrainer(Trainer):
    """Trains a concept: its vectors, its low-rank weights and, with ICO, vectors for each photo."""

    def __init__(self, context: StageContext, concept: Concept, contexts: Tensor, subject: Subject):
        settings = context.settings
        weights = {name: tensor for name, tensor in concept.tensors.items() if name != TOKENS}
        groups = [
            ParamGroup(weights, settings.rate, decays=True),
            ParamGroup({TOKENS: concept.vectors}, settings.rate * subject.token_rate),
        ]
        if subject.ico:
            groups.append(ParamGroup({CONTEXTS: contexts}, settings.rate * subject.context_rate))
        super().__init__(context, groups)
        self.info = concept.info
        photos = context.datasets[OWN]
        self.places = {name: place for place, name in enumerate(photos.read_samples(range(len(photos))).ids)}

    def attach_weights(self, exported: bool = False) -> AbstractContextManager[None]:
        """Lets FLUX compute, within, with the concept's weights: those in training, or those that would be left now."""
        tensors = self.weights.exported if exported else self.trained
        return apply_low_rank(self.host.flux, make_residuals(self.info, tensors))

    def compute_loss(self, batch: Batch) -> Tensor:
        loss = self.compute_training_errors(batch).sum() / self.stage.batch
        self.task_sum = self.task_sum + loss.detach()
        return loss

    def summarize(self, norm: float) -> IterationResult:
        (task,) = ranks.sum_over_ranks(self.task_sum[None], self.device).tolist()
        return IterationResult(self.iteration, task, 0.0, 0.0, (), norm)

    def compute_training_errors(self, batch: Batch) -> Tensor:
        return self._predict_errors(batch, self.trained)

    def measure_errors(self, batch: Batch) -> tuple[Tensor, dict[str, Route]]:
        """Measures the velocity's error of every sample, of what would be left now with every photo's own vectors;
        no routes."""
        with self.attach_weights(exported=True):
            return self._predict_errors(batch, self.weights.exported), {}

    def _predict_errors(self, batch: Batch, tensors: Mapping[str, Tensor]) -> Tensor:
        target = self.host.scale_latent(batch.target.to(self.device)).float()
        times, eps, pooled = (part.to(self.device) for part in (batch.times, batch.noise, batch.pooled))
        x = add_noise(target, eps, times)
        source, context = skip_source(self.host, x, self.checkpointing_options), self.embed_prompts(batch, tensors)
        inputs = FluxInputs(x, times, context, pooled, torch.full_like(times, self.settings.guidance))
        return task_loss(predict_velocity(self.host, source, inputs), target, eps)

    def embed_prompts(self, batch: Batch, tensors: Mapping[str, Tensor]) -> Tensor:
        """Inserts the vectors that belong to the batch's prompts; pictures of the class have none."""
        context = batch.context.to(self.device)
        if batch.task != OWN:
            return context
        context, _ = insert_vectors(context, None, tensors[TOKENS])
        if CONTEXTS in tensors:
            photo_vectors = tensors[CONTEXTS][[self.places[name] for name in batch.ids]]
            context, _ = insert_vectors(context, None, photo_vectors)
        return context

    def export_concept(self) -> Concept:
        """Gives the concept as it would be left now."""
        tensors = {name: self.weights.exported[name].detach().cpu().clone() for name in list_shapes(self.info)}
        return Concept(replace(self.info, iterations=self.iteration), tensors)
