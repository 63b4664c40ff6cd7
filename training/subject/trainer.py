"""Fine-tuning one's own subject: the concept's vectors and a LoRA, and for each photo vectors of its own.

Image-specific context optimisation (Jin et al., ECCV 2024): a photo is told as [photo's vectors] [concept] noun, so that
its place, pose and light need not go into the concept; the photo's vectors learn fastest and are thrown away. Where the
recipe says no, this is plain fine-tuning: the caption, and the concept beside its noun.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ...prw.flux.inputs import FluxInputs
from ...prw.personalization.concept import TOKENS, Concept, ConceptInfo, insert_vectors, list_shapes, make_residuals
from ...prw.personalization.low_rank_patch import apply_low_rank
from ...prw.router import Route
from ..batch import Batch
from ..distributed import ranks
from ..forward import predict_velocity, skip_source
from ..objective import noised, task_loss
from ..recipes.subject import OWN, Subject
from ..trainer import Group, Step, Trainer, Work

CONTEXTS = "contexts"
"""(photos, vectors, width)"""


def fresh_concept(info: ConceptInfo, vectors: Tensor, seed: int) -> Concept:
    """Weights that add nothing yet."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {TOKENS: vectors}
    for name, shape in list_shapes(info).items():
        if name != TOKENS:
            size = shape[1] ** -0.5 if ".lora_A." in name else 0.0
            tensors[name] = torch.randn(shape, generator=generator) * size
    return Concept(info, tensors)


class SubjectTrainer(Trainer):
    newest = -1
    """No router chooses anything."""

    def __init__(self, work: Work, concept: Concept, contexts: Tensor, subject: Subject):
        settings = work.settings
        weights = {name: tensor for name, tensor in concept.tensors.items() if name != TOKENS}
        groups = [
            Group(weights, settings.rate, decays=True),
            Group({TOKENS: concept.vectors}, settings.rate * subject.token_rate),
        ]
        if subject.ico:
            groups.append(Group({CONTEXTS: contexts}, settings.rate * subject.context_rate))
        super().__init__(work, groups)
        self.info, self.left = concept.info, self.average or self.trained
        photos = work.lessons[OWN]
        self.places = {name: place for place, name in enumerate(photos.rows(range(len(photos))).ids)}

    def bending(self, tensors: Mapping[str, Tensor]) -> AbstractContextManager:
        return apply_low_rank(self.host.flux, make_residuals(self.info, tensors))

    def _gradients(self) -> Tensor:
        """Leaves this rank's gradients; gives its part of the loss."""
        task, batches = torch.zeros((), device=self.device), self.batches()
        with self.bending(self.trained):
            for _ in self.in_step(len(batches)):
                (0 * self._errors(batches[0], self.trained).sum()).backward()
            for batch in batches:
                loss = self._errors(batch, self.trained).sum() / self.stage.batch
                self._refuse_infinite(loss, batch)
                self.sums.backward(loss, last=batch is batches[-1])
                task = task + loss.detach()
        return task[None]

    def _told(self, sums: Tensor, norm: float) -> Step:
        (task,) = ranks.total(sums, self.device).tolist()
        return Step(self.iteration, task, 0.0, 0.0, (), norm)

    def errors(self, batch: Batch) -> tuple[Tensor, dict[str, Route]]:
        """The velocity's error of every sample, of what would be left now with every photo's own vectors; no routes."""
        with self.bending(self.left):
            return self._errors(batch, self.left), {}

    def _errors(self, batch: Batch, tensors: Mapping[str, Tensor]) -> Tensor:
        target = self.host.latent_in(batch.target.to(self.device)).float()
        times, eps, pooled = (part.to(self.device) for part in (batch.times, batch.noise, batch.pooled))
        x = noised(target, eps, times)
        source, context = skip_source(self.host, x, self.spare), self.told(batch, tensors)
        inputs = FluxInputs(x, times, context, pooled, torch.full_like(times, self.settings.guidance))
        found = predict_velocity(self.host, source, inputs)
        return task_loss(found, target, eps)

    def told(self, batch: Batch, tensors: Mapping[str, Tensor]) -> Tensor:
        """The batch's text with the vectors that belong to it; pictures of the class have none."""
        context = batch.context.to(self.device)
        if batch.task != OWN:
            return context
        context, _ = insert_vectors(context, None, tensors[TOKENS])
        if CONTEXTS in tensors:
            own = tensors[CONTEXTS][[self.places[name] for name in batch.ids]]
            context, _ = insert_vectors(context, None, own)
        return context

    def result(self) -> Concept:
        """The concept as it would be left now."""
        tensors = {name: self.left[name].detach().cpu().clone() for name in list_shapes(self.info)}
        return Concept(ConceptInfo(**{**vars(self.info), "iterations": self.iteration}), tensors)
