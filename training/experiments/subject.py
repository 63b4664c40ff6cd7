"""What image-specific context optimisation, two branches and a shared step are for, on the toy world: a subject that is
kept, in prompts that are followed.

A row is a way of training and a way of drawing. All are trained on the same photos for as long, and asked the same
questions, the first two ways on the way there, too: what is true in the end may be lost by then, or not there yet.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...prw.embedded_host import EmbeddedHost
from ...prw.files.atomic_write import atomic_write
from ...prw.flux.inputs import EncodedPrompt
from ...prw.flux.sampling import make_timesteps
from ...prw.personalization.concept import Concept, insert_vectors, make_residuals
from ...prw.personalization.dual_branch import BlendSettings
from ...prw.personalization.low_rank_patch import apply_low_rank
from ...prw.personalization.marked_prompt import remove_marks
from ...prw.personalization.shared_guidance import SharedStepSettings
from ..checkpoint.run_folder import fingerprint
from ..forward import EMBEDDED_CHECKPOINTING
from ..listener import Listener
from ..monitor.plots import Curve, chart
from ..recipes.curriculum import BUDGETS, SUBJECT
from ..recipes.subject import SubjectRecipe, load_recipe, shortened
from ..sampling import SamplingSettings
from ..subject.dataset import recipe_lessons
from ..subject.run import SubjectRun
from ..toy.evaluate import CFG, STEPS
from ..toy.store import NAME, SHIPPED, open_set
from ..toy.subject import SubjectQuestion, make_questions, mean_scores
from .curricula import HELD_OUT, mean_and_sd
from .dual_branch import Branch, drawn_beside
from .shared_guidance import drawn_shared

SAYS = "Contexts of their own keep prompts followed for longer, two branches follow them better (ECCV 2024)."
MEASURES = ("fidelity", "editability")
MOMENTS = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)
"""Shares of the iterations after which questions are asked."""
BLEND = BlendSettings(strength=1.0, last=3)
"""Of the toy FLUX's six blocks all but the last third, and the strength that suits the smallest pictures."""


PLANS = {
    "switching": SharedStepSettings(0.14, 1.0, 1.0),
    "mixed": SharedStepSettings(0.0, 0.5, 1.0),
    "multi-stage": SharedStepSettings(0.2, 0.57, 1.0),
    "masked": SharedStepSettings(0.06, 0.5, 0.3),
}
"""With the values of their authors (prw/personal.py)."""
ALONE, BESIDE = ALONG = ("alone", "two branches")
"""Ways of drawing that are asked along the training; the others in the end."""


class Row(NamedTuple):
    ico: bool
    way: str = ALONE
    """Of drawing."""


ROWS = {
    "plain": Row(False),
    "ICO": Row(True),
    "two branches": Row(False, BESIDE),
    "ICO, two branches": Row(True, BESIDE),
    **{f"ICO, {way}": Row(True, way) for way in PLANS},
}
Curves = dict[str, dict[str, float]]
"""Iterations, as a text -> measures."""


class SubjectLaboratory:
    """Trains and asks; what is finished is kept in its folder and not done again."""

    def __init__(self, out: Path, budget: str, count: int, say: Callable[[str], None]):
        self.out, self.count, self.say = out, count, say
        recipe = load_recipe(SUBJECT)
        self.recipe = shortened(recipe, BUDGETS[budget])
        self.flux, self.encoders = open_set(SHIPPED)
        self.host = EmbeddedHost(self.flux, next(self.flux.parameters()).dtype)

    def perform(self, seeds: int) -> dict[str, dict[int, Curves]]:
        found: dict[str, dict[int, Curves]] = {}
        for seed in range(seeds):
            reports = {ico: self._measured(ico, seed) for ico in (False, True)}
            for name, row in ROWS.items():
                found.setdefault(name, {})[seed] = reports[row.ico][row.way]
        return found

    def _measured(self, ico: bool, seed: int) -> dict[str, Curves]:
        settings = replace(self.recipe.curriculum.settings, validate_every=0, sample_every=0)
        curriculum = replace(self.recipe.curriculum, settings=settings)
        recipe = SubjectRecipe(curriculum, replace(self.recipe.subject, ico=ico))
        folder = self.out / fingerprint(curriculum, seed, [repr(recipe.subject)])
        ways = tuple(row.way for row in ROWS.values() if row.ico == ico)
        exam = Exam(folder / f"exam-{self.count}.json", self, seed, ways)
        if not exam.finished(recipe.stage.iterations):
            self.say(f"subject: {'with' if ico else 'without'} ICO, seed {seed}")
            lessons = recipe_lessons(recipe, self.encoders, seed)
            run = SubjectRun(
                self.host, recipe, lessons, self.encoders, folder, seed, NAME, [exam], EMBEDDED_CHECKPOINTING
            )
            if run.path.exists() or not any(exam.report.values()):  # other questions need the way there once more
                run.path.unlink(missing_ok=True)
                run.checkpoints(recipe.stage, 0, settings).clear()
            run.train()
        return exam.report

    def answers(self, concept: Concept, way: str, seed: int) -> dict[str, float]:
        """How well questions are answered, drawn this way."""
        questions = sorted(make_questions(self.count, HELD_OUT + seed), key=lambda question: len(question.scene.items))
        pictures: list[np.ndarray] = []
        with apply_low_rank(self.flux, make_residuals(concept.info, concept.tensors)):
            for size in sorted({len(question.scene.items) for question in questions}):
                some = [question for question in questions if len(question.scene.items) == size]
                pictures += list(self._drawn(concept, some, way, seed + size))
        return mean_scores(questions, pictures)

    def _drawn(self, concept: Concept, questions: Sequence[SubjectQuestion], way: str, seed: int) -> np.ndarray:
        """Of questions whose words stand at the same places."""
        generator = torch.Generator().manual_seed(seed)
        (context, pooled), words = self._told(questions), self.encoders.find_words(questions[0].prompt)
        longer, marked = insert_vectors(context, words, concept.vectors)
        negative = EncodedPrompt(
            *(part.expand(len(questions), *part.shape[1:]) for part in self.encoders.encode_prompts([""]))
        )
        noise, apart = (torch.randn(len(questions), 16, 8, 8, generator=generator) for _ in range(2))
        own = Branch(EncodedPrompt(longer, pooled), marked, noise)
        if way in PLANS:
            plain = Branch(EncodedPrompt(context, pooled), words, noise)
            draw = partial(drawn_shared, self.host, own.text, plain, plan=PLANS[way])
        else:
            blend = BLEND if way == BESIDE else replace(BLEND, end=0.0)
            draw = partial(
                drawn_beside, self.host, own, Branch(EncodedPrompt(context, pooled), words, apart), blend=blend
            )
        return self.encoders.decode(draw(settings=SamplingSettings(make_timesteps(STEPS), cfg=CFG, negative=negative)))

    def _told(self, questions: Sequence[SubjectQuestion]) -> tuple[Tensor, Tensor]:
        return self.encoders.encode_prompts([remove_marks(question.prompt) for question in questions])


class Exam(Listener):
    """Asks on the way, and keeps what it was answered."""

    def __init__(self, path: Path, laboratory: SubjectLaboratory, seed: int, ways: Sequence[str]):
        self.path, self.laboratory, self.seed, self.ways = path, laboratory, seed, ways
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.report: dict[str, Curves] = {way: known.get(way, {}) for way in ways}

    def finished(self, iterations: int) -> bool:
        return all(self._moments(way, iterations) <= {*map(int, self.report[way])} for way in self.ways)

    def _moments(self, way: str, iterations: int) -> set[int]:
        return moments(iterations) if way in ALONG else {iterations}

    def stage_began(self, trainer) -> None:
        if trainer.iteration == 0:
            self.stepped(trainer, None)

    def stepped(self, trainer, step) -> None:
        at, iterations = trainer.iteration, trainer.stage.iterations
        due = [w for w in self.ways if at in self._moments(w, iterations) and str(at) not in self.report[w]]
        if not due:
            return
        concept = trainer.result()
        for way in due:
            self.report[way][str(at)] = self.laboratory.answers(concept, way, self.seed)
        with atomic_write(self.path) as part:
            part.write_text(json.dumps(self.report), encoding="utf-8")


def moments(iterations: int) -> set[int]:
    return {round(share * iterations) for share in MOMENTS}


def means(seeds: dict[int, Curves], name: str) -> Curve:
    """A measure over the iterations, the mean of the seeds."""
    at = sorted(map(int, next(iter(seeds.values()))))
    return Curve(at, [float(np.mean([curves[str(i)][name] for curves in seeds.values()])) for i in at])


def summary(found: dict[str, dict[int, Curves]]) -> dict[str, dict[str, tuple[float, float]]]:
    """{row: {measure: (mean, sd)}} at the end."""
    rows = {}
    for row, seeds in found.items():
        last = [curves[max(curves, key=int)] for curves in seeds.values()]
        rows[row] = {name: mean_and_sd([each[name] for each in last]) for name in MEASURES}
    return rows


def draw_curves(found: dict[str, dict[int, Curves]]) -> Image.Image:
    """Each measure over the iterations, and one against the other: up and to the right is better."""
    along = {row: seeds for row, seeds in found.items() if ROWS[row].way in ALONG}
    curves = {name: {row: means(seeds, name) for row, seeds in along.items()} for name in MEASURES}
    charts = [chart(name, lines, low=0, high=1) for name, lines in curves.items()]
    across, up = (curves[name] for name in MEASURES)
    ways = {row: Curve(across[row].y, up[row].y) for row in along}
    charts.append(chart(" against ".join(MEASURES[::-1]), ways, across=MEASURES[0], low=0, high=1))
    sheet = Image.new("RGB", (charts[0].width, sum(each.height for each in charts)))
    for i, each in enumerate(charts):
        sheet.paste(each, (0, sum(one.height for one in charts[:i])))
    return sheet
