"""One's own subject, fine-tuned in a folder: it can be stopped anywhere and goes on there.

NAME.safetensors           the concept, named like the recipe's stage
checkpoints/               where training can go on
log.jsonl, samples/        what happened
run.json                   what this folder is of (checkpoint/run_folder.py)
"""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from ...prw.base_model import Base
from ...prw.flux.families import find_model_family
from ...prw.flux.inputs import EncodedPrompt
from ...prw.flux.sampling import make_timesteps
from ...prw.personalization.concept import Concept, ConceptInfo, insert_vectors
from ...prw.positions import token_grid
from ..check_lengths import check_lengths
from ..checkpoint.checkpoints import TrainingError
from ..data.encoded.dataset import EncodedDataset
from ..data.encoded.samples import EncodedSamples
from ..distributed import ranks
from ..errors import RunStopped
from ..forward import skip_source
from ..recipes.curriculum import SUBJECT, Stage
from ..recipes.subject import OWN, PRIOR
from ..run import Run
from ..sampling import SamplingSettings, sample_with_readers
from ..stage_context import StageContext
from ..validate import SEED, Validation, stack_rows, validate
from .dataset import init_vectors
from .trainer import TOKENS, SubjectTrainer, init_concept

PHOTOS = 4
"""Shown above what is sampled."""


class SubjectRun(Run):
    """Trains a concept; `datasets` are the subject's photos, and the class's pictures where the recipe wants some."""

    @property
    def concept_path(self) -> Path:
        return self.path / f"{self.recipe.stage.name}.safetensors"

    def train(self) -> Concept:
        self._check_datasets()
        base = Base.of(self.host.flux).with_probe(self.host.flux, self.base_name)
        # prompts are only what samples show, and what folders hold is in the samples' names
        subject = replace(self.recipe.subject, prompts=(), photos="", prior="")
        pictures = {name: {name: read_all(self.datasets[name]).ids} for name in sorted(self.datasets)}
        decides = {SUBJECT: asdict(subject), **pictures}
        self.folder.begin(self.recipe.curriculum, self.seed, base, None, decides)
        check_lengths(self, self.recipe.curriculum)
        if ranks.broadcast_object(self.is_finished(self.recipe.stage, 0)):
            return Concept.open(self.concept_path)
        if self.is_stop_requested():
            raise RunStopped
        stage, settings = self.recipe.stage, self.recipe.curriculum.settings
        trainer, checkpoints = self.make_trainer(base), self.open_checkpoints(stage, 0, settings)
        self.run_trainer(trainer, checkpoints)
        concept = trainer.export_concept()
        self.folder.check_present()
        if ranks.rank() == 0:
            concept.save(self.concept_path)  # before what it could be made of again
            checkpoints.clear(but_last=True)
        self.notify("on_stage_end", stage, concept)
        return concept

    def count_finished(self, stage: Stage, number: int) -> int:
        path = self.concept_path
        return (Concept.open(path).info.iterations or stage.iterations) if path.exists() else 0

    def make_trainer(self, base: Base) -> SubjectTrainer:
        """Makes the trainer as it stands at the start."""
        subject, settings, own = self.recipe.subject, self.recipe.curriculum.settings, self.datasets[OWN]
        vectors, contexts = init_vectors(self.encoders, subject, len(own), self.seed)
        info = ConceptInfo(
            base, subject.noun, subject.tokens, vectors.shape[1], settings.rank, settings.alpha, subject.where
        )
        concept = init_concept(info, vectors, self.seed)
        empty = EncodedPrompt(*self.encoders.encode_prompts([""]))
        options = self.checkpointing_options
        context = StageContext(self.host, self.recipe.stage, 0, settings, self.datasets, empty, self.seed, options)
        return SubjectTrainer(context, concept, contexts, subject)

    def _check_datasets(self) -> None:
        if self.recipe.stage.replay and PRIOR not in self.datasets:
            raise TrainingError(
                f"The recipe keeps a share of {self.recipe.stage.replay} for pictures of the class, of which there are "
                f"none: give some, or set replay to 0."
            )

    def validate(self, trainer: SubjectTrainer) -> dict[str, Validation]:
        """Validates on the photos themselves, at times and noise that never change: there are no others."""
        return validate(trainer)

    def make_sample_sheet(self, trainer: SubjectTrainer) -> np.ndarray:
        """Makes a picture of some photos and, below them, of what the prompts give."""
        shown = self.encoders.decode(read_all(self.datasets[OWN]).target[:PHOTOS])
        sampled = self.encoders.decode(self.sample_prompts(trainer))
        return stack_rows([np.concatenate(row, axis=1) for row in (shown, sampled)])

    @torch.no_grad()
    def sample_prompts(self, trainer: SubjectTrainer) -> torch.Tensor:
        """Samples latents, as the VAE gives them, for each of the recipe's prompts."""
        settings, device = trainer.settings, trainer.device
        prompts = self.recipe.subject.prompts or (self.recipe.subject.prompt,)
        context, pooled = (part.to(device) for part in self.encoders.encode_prompts(list(prompts)))
        context, _ = insert_vectors(context, None, trainer.weights.exported[TOKENS])
        one = read_all(self.datasets[OWN]).target[:1]
        noise = torch.randn(len(prompts), *one.shape[1:], generator=torch.Generator().manual_seed(SEED)).to(device)
        rows, columns = token_grid(noise, self.host.flux.patch_size)
        source = skip_source(self.host, noise)
        times = make_timesteps(settings.sample_steps, rows * columns, find_model_family(self.host.flux).time_shift)
        sampling = SamplingSettings(times, settings.guidance)
        size = settings.micro or len(prompts)
        with trainer.attach_weights(exported=True):
            parts = [
                sample_with_readers(self.host, [lambda inputs: source], part, EncodedPrompt(*text), sampling)
                for part, *text in zip(*(tensor.split(size) for tensor in (noise, context, pooled)))
            ]
        return torch.cat(parts)


def read_all(dataset: EncodedDataset) -> EncodedSamples:
    return dataset.read_samples(range(len(dataset)))
