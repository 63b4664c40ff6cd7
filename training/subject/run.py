"""One's own subject, fine-tuned in a folder: it can be stopped anywhere and goes on there.

NAME.safetensors           the concept, named like the recipe's stage
checkpoints/               where training can go on
log.jsonl, samples/        what happened
run.json                   what this folder is of (run_folder.py)
"""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from ...prw.base_model import Base
from ...prw.flux.inputs import EncodedPrompt
from ...prw.flux.sampling import make_timesteps
from ...prw.personalization.concept import Concept, ConceptInfo, insert_vectors
from ...prw.positions import token_grid
from ..checkpoint.checkpoints import TrainingError
from ..data.encoded.dataset import EncodedDataset
from ..data.encoded.samples import EncodedSamples
from ..distributed import ranks
from ..errors import Stopped
from ..forward import skip_source
from ..recipes.subject import OWN, PRIOR
from ..runner import Runner
from ..sampling import SamplingSettings, sample_with_contexts
from ..trainer import Work
from ..validate import SEED, Validation, stacked, validate
from .dataset import beginnings
from .trainer import TOKENS, SubjectTrainer, fresh_concept

PHOTOS = 4
"""Shown beside what is drawn."""


class SubjectRun(Runner):
    """Its lessons are the subject's photos, and the class's pictures where the recipe wants some."""

    @property
    def path(self) -> Path:
        return self.out / f"{self.recipe.stage.name}.safetensors"

    def train(self) -> Concept:
        self._refuse_lessons()
        base = Base.of(self.host.flux).with_probe(self.host.flux, self.name)
        # prompts are only what samples show, and what folders hold is in the lessons' names
        subject = replace(self.recipe.subject, prompts=(), photos="", prior="")
        decides = [asdict(subject), *({name: read_all(self.lessons[name]).ids} for name in sorted(self.lessons))]
        self.folder.begun(self.recipe.curriculum, self.seed, base, None, decides)
        if ranks.from_first(self.path.exists()):
            return Concept.open(self.path)
        if self.asked_to_stop():
            raise Stopped
        stage, settings = self.recipe.stage, self.recipe.curriculum.settings
        trainer, folder = self.trainer(base), self.checkpoints(stage, 0, settings)
        self.go_on(trainer, folder)
        concept = trainer.result()
        if ranks.rank() == 0:
            concept.save(self.path)  # before what it could be made of again
            folder.clear()
        self.tell("stage_ended", stage, concept)
        return concept

    def trainer(self, base: Base) -> SubjectTrainer:
        """At the start."""
        subject, settings, own = self.recipe.subject, self.recipe.curriculum.settings, self.lessons[OWN]
        vectors, contexts = beginnings(self.encoders, subject, len(own), self.seed)
        info = ConceptInfo(
            base, subject.noun, subject.tokens, vectors.shape[1], settings.rank, settings.alpha, subject.where
        )
        concept = fresh_concept(info, vectors, self.seed)
        empty = self.encoders.encode_prompts([""])
        work = Work(self.host, self.recipe.stage, 0, settings, self.lessons, empty, self.seed, self.spare)
        return SubjectTrainer(work, concept, contexts, subject)

    def _refuse_lessons(self) -> None:
        if self.recipe.stage.replay and PRIOR not in self.lessons:
            raise TrainingError(
                f"The recipe keeps a share of {self.recipe.stage.replay} for pictures of the class, of which there are "
                f"none: give some, or set replay to 0."
            )

    def validation(self, trainer: SubjectTrainer) -> dict[str, Validation]:
        """On the photos themselves, at times and noise that never change: there are no others."""
        return validate(trainer)

    def sheet(self, trainer: SubjectTrainer) -> np.ndarray:
        """Some photos, and below them what the prompts give."""
        shown = self.encoders.decode(read_all(self.lessons[OWN]).target[:PHOTOS])
        drawn = self.encoders.decode(self.drawn(trainer))
        return stacked([np.concatenate(row, axis=1) for row in (shown, drawn)])

    @torch.no_grad()
    def drawn(self, trainer: SubjectTrainer) -> torch.Tensor:
        """A picture a prompt, latents as the VAE gives them."""
        settings, device = trainer.settings, trainer.device
        prompts = self.recipe.subject.prompts or (self.recipe.subject.told,)
        context, pooled = (part.to(device) for part in self.encoders.encode_prompts(list(prompts)))
        context, _ = insert_vectors(context, None, trainer.left[TOKENS])
        one = read_all(self.lessons[OWN]).target[:1]
        noise = torch.randn(len(prompts), *one.shape[1:], generator=torch.Generator().manual_seed(SEED)).to(device)
        rows, columns = token_grid(noise, self.host.flux.patch_size)
        source = skip_source(self.host, noise)
        sampling = SamplingSettings(make_timesteps(settings.sample_steps, rows * columns), settings.guidance)
        size = settings.micro or len(prompts)
        with trainer.bending(trainer.left):
            parts = [
                sample_with_contexts(self.host, [source], part, EncodedPrompt(*text), sampling)
                for part, *text in zip(*(tensor.split(size) for tensor in (noise, context, pooled)))
            ]
        return torch.cat(parts)


def read_all(dataset: EncodedDataset) -> EncodedSamples:
    return dataset.rows(range(len(dataset)))
