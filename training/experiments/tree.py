"""Experts in a tree compared on the toy world: are two children of one expert as good as two experts, for their size?

Every row ends with an expert for edge maps (canny) and one for depth maps, after equal iterations in all: children and copies are
trained after half of them were their parent's, which sees every kind of map.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from ...prw.bank.bank import Bank
from ...prw.bank.shapes import list_expert_keys
from ...prw.files.atomic_write import atomic_write
from ...prw.source import Routing
from ..checkpoint.run_folder import DATASETS_FOLDER, RunFolder, format_label
from ..checkpoint.run_record import fingerprint
from ..coredi.make_trainer import make_stage_trainer
from ..curriculum_run import CurriculumRun
from ..data.encoded.dataset import MemoryDataset
from ..data.encoded.encode import encode_dataset
from ..from_scratch.evaluate import answer_questions, summarize
from ..from_scratch.store import open_models
from ..recipes.curriculum import BUDGETS, Curriculum, load_curriculum, scale_curriculum
from ..setup.stage_data import RunDatasetFile, StageDatasets
from ..toy.score import score_control
from ..toy.store import TOY
from ..toy.tasks import Question, make_control_question
from .curricula import HELD_OUT

TREE = "tree"
CLAIM = "Children that add to a common expert take less room than experts of their own (the authors' outlook)."
PARENT, KINDS = "control", ("canny", "depth")
CHILD_RANK, BATCH, CHUNK = 8, 32, 64
MAX_EXAMPLES, MIN_EXAMPLES = 8000, 64
Scores = dict[str, Any]
"""By kind of map the scores of its questions, one by one; "numbers": how many the experts have that their routers choose among; "iterations"."""


def make_rows(curriculum: Curriculum) -> dict[str, Curriculum]:
    """Makes the rows of the toy curriculum, with as many iterations in all as twice its stage for control maps."""
    stage = next(stage for stage in curriculum.stages if stage.name == PARENT)
    stage = replace(stage, batch=BATCH, rho=1.0, veteran=0.0, start="")
    half = replace(stage, task=PARENT, iterations=max(1, stage.iterations // 2))

    def row(*, alone: bool = False, **child: Any) -> Curriculum:
        first, last = (replace(stage if alone else half, name=kind, task=PARENT, **child) for kind in KINDS)
        own = (first, replace(last, rho=0.8, veteran=0.5))
        return replace(curriculum, stages=own if alone else (stage, *own))

    rank = curriculum.settings.rank
    return {
        f"children of rank {CHILD_RANK}": row(parent=PARENT, rank=CHILD_RANK),
        f"copies of rank {rank}": row(start=PARENT),
        f"experts of rank {rank}": row(alone=True),
        f"experts of rank {CHILD_RANK}": row(alone=True, rank=CHILD_RANK),
    }


def make_kind_questions(kind: str, total: int, seed: int) -> list[Question]:
    """Makes the first questions about control maps that are of one kind; "control": of any."""
    rng = np.random.default_rng(seed)
    questions = (make_control_question(rng, f"{kind}-{seed}-{i}") for i in count())
    return list(islice((each for each in questions if kind in (each.example.kind, PARENT)), total))


class TreeExperiment:
    """Trains and evaluates the rows; what is finished is kept in a folder and not done again."""

    def __init__(self, out: Path, budget: str, questions: int, say: Callable[[str], None]):
        models = open_models(TOY)
        self.out, self.questions, self.say = out / models.identity(), questions, say
        self.rows = make_rows(scale_curriculum(load_curriculum("toy"), BUDGETS[budget]))
        self.encoders, self.host = models.encoders, models.make_host()
        total = max(MIN_EXAMPLES, round(MAX_EXAMPLES * BUDGETS[budget]))
        files = {kind: self._describe_data(kind, total) for kind in (PARENT, *KINDS)}
        self.datasets = StageDatasets(
            {kind: [file] for kind, file in files.items()}, self.out / DATASETS_FOLDER, lambda *_: None
        )

    def _describe_data(self, kind: str, total: int) -> RunDatasetFile:
        def make(progress) -> MemoryDataset:
            return encode_dataset(self.encoders, PARENT, [each.example for each in make_kind_questions(kind, total, 0)])

        return RunDatasetFile(f"{PARENT}-{kind}-{total}", make)

    def run(self, seeds: int) -> dict[str, list[Scores]]:
        """Runs all rows; gives, by row, what is measured with each seed."""
        return {row: [self._run_row(row, seed) for seed in range(seeds)] for row in self.rows}

    def _run_row(self, row: str, seed: int) -> Scores:
        curriculum = self.rows[row]
        folder = self.out / f"{TREE}-{fingerprint(curriculum, seed)}"
        path = folder / f"{TREE}-{self.questions}.json"
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        self.say(f"{TREE}: {row}, seed {seed}")
        inputs = (self.host, curriculum, self.datasets, self.encoders, folder, seed, TOY.base)
        bank = CurriculumRun(*inputs, make_trainer=make_stage_trainer).train(self._open_parent(row, seed))
        scores: Scores = {kind: self._score(bank, kind, seed) for kind in KINDS}
        needed = {name for kind in KINDS for name in bank.info.list_known(kind)}
        keys = [key for name in needed for key in list_expert_keys(bank.info, name)]
        scores["numbers"] = sum(bank.tensors[key].numel() for key in keys)
        scores["iterations"] = sum(stage.iterations for stage in curriculum.stages)
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(scores), encoding="utf-8")
        return scores

    def _open_parent(self, row: str, seed: int) -> Bank | None:
        """Opens the bank after the stage that the first two rows share; None where there is none, or not yet."""
        first = self.rows[next(iter(self.rows))]
        if PARENT not in [stage.name for stage in self.rows[row].stages] or self.rows[row] is first:
            return None
        folder = RunFolder(self.out / f"{TREE}-{fingerprint(first, seed)}")
        return Bank.open(folder.stage_path(format_label(first.stages[0], 0)))

    def _score(self, bank: Bank, kind: str, seed: int) -> list[float]:
        scores: list[float] = []
        questions = make_kind_questions(kind, self.questions, HELD_OUT + seed)
        for start in range(0, len(questions), CHUNK):
            chunk, routing = questions[start : start + CHUNK], Routing(task=PARENT, router=kind)
            pictures = answer_questions(self.host, self.encoders, bank, chunk, seed + start, routing)
            scores += [score_control(question, picture)[kind] for question, picture in zip(chunk, pictures)]
        return scores


def format_rows(rows: Mapping[str, Sequence[Scores]]) -> str:
    """Formats a Markdown table: how large the experts are,
    and of each kind of map the mean over all seeds with its 95 % interval."""
    largest = max(seeds[0]["numbers"] for seeds in rows.values())
    lines = ["| | size | iterations | " + " | ".join(KINDS) + " |", "|---" * (3 + len(KINDS)) + "|"]
    for row, seeds in rows.items():
        cells = [f"{seeds[0]['numbers'] / largest:.2f}", str(seeds[0]["iterations"])]
        for kind in KINDS:
            found = summarize(*([{kind: score} for score in scores[kind]] for scores in seeds))
            low, high = found[f"{kind}_ci"]
            cells.append(f"{found[kind]:.3f} ({low:.3f} to {high:.3f})")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
