"""Image-specific context optimisation (ICO), two branches and a shared step compared on a built-in world: is the subject kept,
and are prompts followed?

A row is a way of training and a way of sampling. All are trained on the same photos for as long and asked the same
questions; the first two ways of sampling are also evaluated during training, whose end need not be its best.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...prw.files.atomic_write import atomic_write
from ...prw.flux.inputs import EncodedPrompt
from ...prw.flux.sampling import make_timesteps
from ...prw.personalization.concept import Concept, insert_vectors, make_residuals
from ...prw.personalization.dual_branch import BlendSettings
from ...prw.personalization.low_rank_patch import apply_low_rank
from ...prw.personalization.marked_prompt import remove_marks
from ...prw.personalization.shared_guidance import WAYS
from ..checkpoint.run_record import fingerprint
from ..forward import EMBEDDED_CHECKPOINTING
from ..from_scratch.evaluate import CFG, STEPS
from ..from_scratch.store import WorldModels
from ..from_scratch.world import SubjectQuestion, World
from ..listener import Listener
from ..monitor.plots import Curve, draw_chart
from ..recipes.curriculum import BUDGETS, SUBJECT
from ..recipes.subject import SubjectRecipe, load_recipe, scale_recipe
from ..sampling import SamplingSettings
from ..stage_context import IterationResult
from ..subject.dataset import open_subject_datasets
from ..subject.run import SubjectRun
from ..trainer import Trainer
from .curricula import HELD_OUT
from .dual_branch import Branch, sample_two_branches
from .run_curricula import mean_and_sd
from .shared_guidance import sample_shared

CLAIM = "Contexts of their own keep prompts followed for longer, two branches follow them better (ECCV 2024)."
MEASURES = ("fidelity", "editability")
EVALUATED_SHARES = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)
"""Shares of the iterations after which concepts are evaluated."""
BLEND = BlendSettings(strength=1.0, last=3)
"""Of the six blocks of a built-in world's FLUX all but the last third, and the strength that suits the smallest pictures."""

SHARED_STEPS = {way: WAYS[way] for way in ("switching", "mixed", "multi-stage", "masked")}
"""Those with the values of their authors."""
ALONE, TWO_BRANCHES = DURING_TRAINING = ("alone", "two branches")
"""Ways of sampling that are evaluated during training; the others at its end."""


class Row(NamedTuple):
    """A way of training and one of sampling."""

    ico: bool
    way: str = ALONE


ROWS = {
    "plain": Row(False),
    "ICO": Row(True),
    "two branches": Row(False, TWO_BRANCHES),
    "ICO, two branches": Row(True, TWO_BRANCHES),
    **{f"ICO, {way}": Row(True, way) for way in SHARED_STEPS},
}
Curves = dict[str, dict[str, float]]
"""Number of iterations, as text -> measures."""
Reports = dict[str, dict[int, Curves]]
"""By row and seed."""


class SubjectExperiment:
    """Trains subjects and evaluates them; what is finished is kept in a folder and not done again."""

    def __init__(
        self, world: World, models: WorldModels, out: Path, budget: str, count: int, say: Callable[[str], None]
    ):
        assert world.subject is not None
        self.world, self.subject = world, world.subject
        self.out, self.count, self.say = out, count, say
        recipe = load_recipe(SUBJECT)
        assert isinstance(recipe, SubjectRecipe)
        own = replace(recipe.subject, noun=self.subject.noun, prompts=())
        curriculum = replace(recipe.curriculum, base=world.name)
        self.recipe = scale_recipe(SubjectRecipe(curriculum, own), BUDGETS[budget])
        self.flux, self.encoders = models
        self.identity = models.identity()
        self.host = models.make_host()

    def run(self, seeds: int) -> Reports:
        """Runs all rows with this many seeds."""
        reports: Reports = {}
        for seed in range(seeds):
            curves = {ico: self._run_training(ico, seed) for ico in (False, True)}
            for name, row in ROWS.items():
                reports.setdefault(name, {})[seed] = curves[row.ico][row.way]
        return reports

    def _run_training(self, ico: bool, seed: int) -> dict[str, Curves]:
        """Trains a subject with ICO or without; returns curves by way of sampling."""
        settings = replace(self.recipe.curriculum.settings, validate_every=0, sample_every=0)
        curriculum = replace(self.recipe.curriculum, settings=settings)
        recipe = SubjectRecipe(curriculum, replace(self.recipe.subject, ico=ico))
        folder = self.out / fingerprint(curriculum, seed, [repr(recipe.subject), self.identity])
        ways = tuple(row.way for row in ROWS.values() if row.ico == ico)
        evaluator = ConceptEvaluator(folder / f"exam-{self.count}.json", self, seed, ways)
        if not evaluator.is_finished(recipe.stage.iterations):
            self.say(f"subject: {'with' if ico else 'without'} ICO, seed {seed}")
            datasets = open_subject_datasets(recipe, self.encoders, seed, self.world)
            run = SubjectRun(
                self.host,
                recipe,
                datasets,
                self.encoders,
                folder,
                seed,
                self.world.base,
                [evaluator],
                EMBEDDED_CHECKPOINTING,
            )
            # figures are taken on the way: without any, or for others after the end, the way begins anew
            if run.concept_path.exists() or not any(evaluator.report.values()):
                run.concept_path.unlink(missing_ok=True)
                run.open_checkpoints(recipe.stage, 0, settings).clear()
            run.train()
        return evaluator.report

    def evaluate(self, concept: Concept, way: str, seed: int) -> dict[str, float]:
        """Measures how well pictures that are sampled this way answer the questions."""
        questions = sorted(self.subject.ask(self.count, HELD_OUT + seed), key=lambda question: question.size)
        pictures: list[np.ndarray] = []
        with apply_low_rank(self.flux, make_residuals(concept.info, concept.tensors)):
            for size in sorted({question.size for question in questions}):
                alike = [question for question in questions if question.size == size]
                pictures += list(self._generate(concept, alike, way, 1000 * seed + size))
        scores = [self.subject.score(*answered) for answered in zip(questions, pictures, strict=True)]
        return {name: float(np.mean([score[name] for score in scores])) for name in scores[0]}

    def _generate(self, concept: Concept, questions: Sequence[SubjectQuestion], way: str, seed: int) -> np.ndarray:
        """Generates answers to questions whose words stand at the same places."""
        generator = torch.Generator().manual_seed(seed)
        (context, pooled), words = self._encode(questions), self.encoders.find_words(questions[0].prompt)
        assert words is not None
        longer, marked = insert_vectors(context, words, concept.vectors)
        assert marked is not None
        negative = EncodedPrompt(*self.encoders.encode_prompts([""] * len(questions)))
        family = self.host.family
        side = self.world.side // family.latent_pixels
        shape = len(questions), family.latent_channels, side, side
        noise, auxiliary_noise = (torch.randn(shape, generator=generator) for _ in range(2))
        branch = Branch(EncodedPrompt(longer, pooled), marked, noise)
        if way in SHARED_STEPS:
            plain = Branch(EncodedPrompt(context, pooled), words, noise)
            sample = partial(sample_shared, self.host, branch.prompt, plain, SHARED_STEPS[way])
        else:
            blend = BLEND if way == TWO_BRANCHES else replace(BLEND, end=0.0)
            auxiliary = Branch(EncodedPrompt(context, pooled), words, auxiliary_noise)
            sample = partial(sample_two_branches, self.host, branch, auxiliary, blend)
        return self.encoders.decode(sample(SamplingSettings(make_timesteps(STEPS), cfg=CFG, negative=negative)))

    def _encode(self, questions: Sequence[SubjectQuestion]) -> tuple[Tensor, Tensor]:
        return self.encoders.encode_prompts([remove_marks(question.prompt) for question in questions])


class EvaluatesConcepts(Protocol):
    """Knows what a concept is asked."""

    def evaluate(self, concept: Concept, way: str, seed: int) -> dict[str, float]: ...


class ConceptEvaluator(Listener):
    """Evaluates a concept while it is trained, and keeps the figures in a file."""

    def __init__(self, path: Path, experiment: EvaluatesConcepts, seed: int, ways: Sequence[str]):
        self.path, self.experiment, self.seed, self.ways = path, experiment, seed, ways
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.report: dict[str, Curves] = {way: known.get(way, {}) for way in ways}

    def is_finished(self, iterations: int) -> bool:
        """Says whether all figures of a training of this length are there."""
        return all(self._due_iterations(way, iterations) <= {*map(int, self.report[way])} for way in self.ways)

    def _due_iterations(self, way: str, iterations: int) -> set[int]:
        return list_evaluated_iterations(iterations) if way in DURING_TRAINING else {iterations}

    def on_stage_begin(self, trainer: Trainer) -> None:
        if trainer.iteration == 0:
            self._evaluate_due(trainer)

    def on_iteration(self, trainer: Trainer, result: IterationResult) -> None:
        self._evaluate_due(trainer)

    def _evaluate_due(self, trainer: Any) -> None:
        """Evaluates a SubjectTrainer's concept in the ways that are due at its iteration."""
        at, iterations = trainer.iteration, trainer.stage.iterations
        due = [way for way in self.ways if at in self._due_iterations(way, iterations)]
        due = [way for way in due if str(at) not in self.report[way]]
        if not due:
            return
        concept = trainer.export_concept()
        for way in due:
            self.report[way][str(at)] = self.experiment.evaluate(concept, way, self.seed)
        with atomic_write(self.path) as partial:
            partial.write_text(json.dumps(self.report), encoding="utf-8")


def list_evaluated_iterations(iterations: int) -> set[int]:
    return {round(share * iterations) for share in EVALUATED_SHARES}


def average_seeds(seeds: dict[int, Curves], name: str) -> Curve:
    """Averages a measure over the seeds, iteration by iteration: the mean of the seeds."""
    at = sorted(map(int, next(iter(seeds.values()))))
    return Curve(at, [float(np.mean([curves[str(i)][name] for curves in seeds.values()])) for i in at])


def summarize(reports: Reports) -> dict[str, dict[str, tuple[float, float]]]:
    """Gives, by row and measure, mean and standard deviation at the end of training."""
    rows = {}
    for row, seeds in reports.items():
        last = [curves[max(curves, key=int)] for curves in seeds.values()]
        rows[row] = {name: mean_and_sd([measures[name] for measures in last]) for name in MEASURES}
    return rows


def draw_curves(reports: Reports) -> Image.Image:
    """Draws each measure over the iterations, and one against the other: up and to the right is better."""
    rows = {row: seeds for row, seeds in reports.items() if ROWS[row].way in DURING_TRAINING}
    curves = {name: {row: average_seeds(seeds, name) for row, seeds in rows.items()} for name in MEASURES}
    charts = [draw_chart(name, lines, low=0, high=1) for name, lines in curves.items()]
    across, up = (curves[name] for name in MEASURES)
    against = {row: Curve(across[row].y, up[row].y) for row in rows}
    charts.append(draw_chart(" against ".join(MEASURES[::-1]), against, across=MEASURES[0], low=0, high=1))
    sheet = Image.new("RGB", (charts[0].width, sum(picture.height for picture in charts)))
    for i, picture in enumerate(charts):
        sheet.paste(picture, (0, sum(above.height for above in charts[:i])))
    return sheet
