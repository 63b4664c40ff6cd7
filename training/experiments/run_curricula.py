"""Trains and evaluates the rows of the curricula's experiments (curricula.py)."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...prw.bank.bank import Bank
from ...prw.coredi.features import SUFFIX, Features
from ...prw.files.atomic_write import atomic_write
from ...prw.files.validate import build
from ..checkpoint.run_folder import DATASETS_FOLDER, RunFolder, format_label
from ..checkpoint.run_record import fingerprint
from ..coredi.make_trainer import make_stage_trainer
from ..coredi.sampling import FeatureSampler
from ..curriculum_run import CurriculumRun
from ..from_scratch.evaluate import Evaluation, evaluate
from ..from_scratch.recipe import ScratchRecipe, shorten_recipe
from ..from_scratch.store import open_models
from ..recipes.curriculum import BUDGETS, Curriculum, Stage, load_curriculum, scale_curriculum
from ..routing_stats import measure_usage
from ..sampling import sample_latents
from ..setup.stage_data import StageDatasets, describe_world_data
from ..toy.store import TOY
from .curricula import EXPERIMENTS, FORGETTING, HELD_OUT, LENGTH, Experiment, start_afresh

USAGE_SAMPLES = 64
"""Held-out samples of each task on which usage is measured."""
Report = dict[str, Any]
"""What is measured of one row and seed: "usage" by stage, and by task what from_scratch/evaluate.py says; or "after", by stage.
LENGTH adds "iterations", those that were trained and the most there could have been."""
Reports = dict[str, dict[int, Report]]
"""By row and seed."""


class ExperimentRunner:
    """Trains the rows of experiments and evaluates them; what is finished is kept in a folder and not done again."""

    def __init__(self, out: Path, budget: str, count: int, say: Callable[[str], None]):
        models = open_models(TOY)
        self.out, self.count, self.say = out / models.identity(), count, say
        recipe = load_curriculum("toy")
        self.curriculum = start_afresh(scale_curriculum(recipe, BUDGETS[budget]))
        examples = shorten_recipe(build(ScratchRecipe, recipe.toy, "toy"), max(BUDGETS[budget], 0.1)).examples
        self.encoders, self.host = models.encoders, models.make_host()
        tasks = [stage.task for stage in recipe.stages]
        self.datasets = StageDatasets(
            {task: [describe_world_data(TOY, task, examples, self.encoders, 0)] for task in tasks},
            self.out / DATASETS_FOLDER,
            lambda *_: None,
        )

    def run(self, name: str, seeds: int) -> Reports:
        """Runs an experiment's rows with this many seeds; reports are also written to the folder."""
        experiment = EXPERIMENTS[name]
        reports: Reports = {}
        for seed in range(seeds):
            for row, curriculum in experiment.rows(self.curriculum).items():
                reports.setdefault(row, {})[seed] = self._run_row(name, row, curriculum, seed)
        return reports

    def _run_row(self, name: str, row: str, curriculum: Curriculum, seed: int) -> Report:
        experiment = EXPERIMENTS[name]
        folder = self.out / fingerprint(curriculum, seed)  # experiments share what they all contain
        what = name if name == FORGETTING else "-".join(experiment.tasks)
        weight = experiment.feature_weights.get(row)
        path = folder / f"{what}-{self.count}{'' if weight is None else f'-along-{weight}'}.json"
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        self.say(f"{name}: {row}, seed {seed}")
        inputs = (self.host, curriculum, self.datasets, self.encoders, folder, seed, TOY.base)
        run = CurriculumRun(*inputs, make_trainer=make_stage_trainer)
        bank = run.train(self._open_shared_bank(experiment, row, seed))
        report: Report = {"usage": measure_newest(run, bank)}
        if name == LENGTH:
            report["iterations"] = count_trained(bank, curriculum)
        if name == FORGETTING:
            report["after"] = {
                stage.name: self._evaluate_stage(folder, i, stage, seed) for i, stage in enumerate(curriculum.stages)
            }
        else:
            router = "final" if row == "co-training" else ""
            draw = (
                sample_latents
                if weight is None
                else FeatureSampler(open_features(curriculum, folder), weight, HELD_OUT + seed)
            )
            evaluation = Evaluation(TOY, self.count, HELD_OUT + seed, experiment.tasks, router)
            report |= evaluate(self.host, self.encoders, bank, evaluation, sampler=draw)
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(report), encoding="utf-8")
        return report

    def _open_shared_bank(self, experiment: Experiment, row: str, seed: int) -> Bank | None:
        """Opens the bank after the stages that all rows share, trained by the first row; None for that row itself."""
        first, curriculum = next(iter(experiment.rows(self.curriculum).items()))
        if not experiment.shared_stages or row == first:
            return None
        number = experiment.shared_stages - 1
        folder = RunFolder(self.out / fingerprint(curriculum, seed))
        return Bank.open(folder.stage_path(format_label(curriculum.stages[number], number)))

    def _evaluate_stage(self, folder: Path, number: int, stage: Stage, seed: int) -> Report:
        """Evaluates the bank after a stage on every task so far, by their own routers and by the newest."""
        bank = Bank.open(RunFolder(folder).stage_path(format_label(stage, number)))
        tasks = [stage.task for stage in self.curriculum.stages[: number + 1]]
        return {
            router or "own": evaluate(
                self.host, self.encoders, bank, Evaluation(TOY, self.count, HELD_OUT + seed, tasks, router)
            )
            for router in ("", "final")
        }


def open_features(curriculum: Curriculum, folder: Path) -> list[Features]:
    """Opens what the stages of a finished run left for sampling along with features."""
    stages = enumerate(curriculum.stages)
    paths = [
        RunFolder(folder).stage_path(format_label(stage, i) + SUFFIX) for i, stage in stages if stage.features != "off"
    ]
    return [Features.open(path) for path in paths]


def measure_newest(run: CurriculumRun, bank: Bank) -> dict[str, float]:
    """Measures, by stage, its expert's share of the blocks by its own router, as at inference,
    on held-out samples of its task."""
    names, data = [stage.name for stage in run.recipe.stages], run.datasets
    return {name: measure_usage(run.host, bank, name, data[name], 0, USAGE_SAMPLES)[-1] for name in names}


def count_trained(bank: Bank, curriculum: Curriculum) -> dict[str, int]:
    trained = sum(bank.info.experts[stage.name].iterations for stage in curriculum.stages)
    return {"trained": trained, "most": sum(stage.iterations for stage in curriculum.stages)}


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Computes sample mean and standard deviation."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
