"""Trains the rows of a plan (plans.py), stage by stage, and asks them; what is finished is kept and not done again.

A folder of the run holds one stage: that of a curriculum's beginning, under a hash of the beginning and the seed. Two rows that
begin alike share it. What was measured of a row lies beside, in a small file under its hash, and then the row is not trained again, even
where its stages are gone. All of it lies under a hash of the base, so that another base begins anew.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from ...prw.bank.bank import Bank
from ...prw.config import FINAL
from ...prw.coredi.features import SUFFIX, Features
from ...prw.embedded_host import EmbeddedHost
from ...prw.files.atomic_write import atomic_write
from ...prw.files.validate import check_range
from ...prw.flux.inputs import FluxInputs
from ...prw.source import Routing
from ...prw.source_pass import Host
from ..checkpoint.run_folder import DATASETS_FOLDER
from ..checkpoint.run_record import fingerprint
from ..coredi.make_trainer import make_stage_trainer
from ..coredi.sampling import FeatureSampler
from ..curriculum_run import CurriculumRun
from ..data.encoded.dataset import MemoryDataset
from ..data.encoded.encode import encode_dataset
from ..encoders.protocol import Encoders
from ..forward import predict_velocity, run_source
from ..from_scratch.encoders import SmallEncoders
from ..from_scratch.evaluate import Evaluation, Sampler, score_answers
from ..from_scratch.store import WorldModels
from ..from_scratch.world import World
from ..listener import Listener
from ..objective import add_noise, task_loss
from ..recipes.curriculum import Curriculum
from ..recipes.stage import Stage
from ..sampling import sample_latents
from ..setup.build_run import DTYPES
from ..setup.stage_data import RunDatasetFile, StageDatasets, describe_world_data
from ..stage_context import IterationResult, StageContext
from ..stage_trainer import StageTrainer
from ..trainer import Trainer
from ..validate import TIMES
from ..world import thing_encoder
from .curricula import HELD_OUT
from .plans import SHARES, SHUFFLED, THINGS, Plan

LOSS, LOSS_DIGITS = "loss", 6
"""What it is called in reports, and its digits there."""
Reports = dict[str, dict[str, list[dict[str, Any]]]]
"""By row and task, what was measured of each seed (PlanRunner.measure_row)."""
CHUNK = 64
"""Samples whose losses are measured at once."""


@dataclass(frozen=True)
class QuestionCounts:
    """How much each row is asked."""

    questions: int
    """Whose answers are drawn and judged in the end; a quarter of them before."""
    losses: int
    """Held-out samples whose velocity error is measured, each at one timestep with one noise."""

    def __post_init__(self):
        for name in ("questions", "losses"):
            check_range(name, getattr(self, name), 1, 10**7)


class Snapshots(Listener):
    """Keeps the bank, and what features are read by, as they are after parts of a stage."""

    def __init__(self, folder: Path, iterations: int):
        self.iterations = {name_snapshot(folder, share): max(1, round(share * iterations)) for share in SHARES}

    def on_iteration(self, trainer: Trainer, result: IterationResult) -> None:
        for path, iteration in self.iterations.items():
            if trainer.iteration == iteration:
                assert isinstance(trainer, StageTrainer)
                if features := trainer.export_features():
                    features.save(name_features(path))
                trainer.export_bank().save(path)


def name_snapshot(folder: Path, share: float) -> Path:
    return folder / f"after-{share}.safetensors"


def name_features(snapshot: Path) -> Path:
    return snapshot.with_name(f"{snapshot.stem}{SUFFIX}.safetensors")


class PlanRunner:
    """Trains and measures the rows of plans."""

    def __init__(
        self,
        world: World,
        models: WorldModels,
        curriculum: Curriculum,
        examples: int,
        out: Path,
        asked: QuestionCounts,
        say: Callable[[str], None],
    ):
        """`examples`: samples of each task that rows are trained on. The models' FLUX is cast to the recipe's precision, where it stands."""
        self.world, self.encoders, self.examples, self.asked, self.say = world, models.encoders, examples, asked, say
        # nobody looks at what is drawn on the way
        unwatched = replace(curriculum.settings, validate_every=0, sample_every=0)
        self.curriculum = replace(curriculum, settings=unwatched)
        self.out = out / models.identity()
        dtype = DTYPES[curriculum.settings.precision]
        self.host = EmbeddedHost(models.flux.to(dtype), dtype)
        self.held_out = cache(partial(encode_held_out, world, self.encoders))

    def run(self, plan: Plan, seeds: int) -> Reports:
        rows = plan.make_rows(self.curriculum)
        reports: Reports = {row: {task: [] for task in forks} for row, forks in rows.items()}
        for seed in range(seeds):
            for row, forks in rows.items():
                for task, curriculum in forks.items():
                    self.say(f"{row}, {task}, seed {seed}")
                    router = FINAL if row in plan.one_router else ""
                    reports[row][task].append(self.measure_row(curriculum, task, router, seed))
        return reports

    def train(self, curriculum: Curriculum, seed: int) -> Path:
        """Trains a curriculum's stages that are not there yet; gives the folder of the last one."""
        bank, folder = None, self.out
        for beginning in list_beginnings(curriculum):
            folder = self.out / "stages" / self.name_beginning(beginning, seed)
            snapshots = Snapshots(folder, beginning.stages[-1].iterations)
            inputs = (self.host, beginning, self.open_datasets(beginning), self.encoders, folder, seed, self.world.base)
            bank = CurriculumRun(*inputs, [snapshots], make_trainer=self.make_trainer).train(bank)
        return folder

    def name_beginning(self, beginning: Curriculum, seed: int) -> str:
        return fingerprint(beginning, seed, [self.examples])

    def make_trainer(self, context: StageContext, bank: Bank, encoders: Encoders, _: Path) -> StageTrainer:
        """Makes a stage's trainer; an encoder's features of the samples are the same for all rows, and lie in one place."""
        if context.settings.encoder == THINGS:  # its record keeps this name: a folder can be moved
            context = replace(context, settings=replace(context.settings, encoder=str(self.make_encoder())))
        return make_stage_trainer(context, bank, encoders, self.out)

    def make_encoder(self) -> Path:
        """Gives the folder of the encoder of things, which is trained where it is not there yet."""
        folder = self.out / "encoder"
        self.say("an encoder of things, if there is none yet")
        thing_encoder.make_thing_encoder(folder, thing_encoder.PLAN, lambda *_: None)
        self.say(f"it labels patches right: {(folder / thing_encoder.ACCURACY).read_text(encoding='utf-8')}")
        return folder

    def open_datasets(self, curriculum: Curriculum) -> StageDatasets:
        files = {stage.name: [self.describe_data(stage)] for stage in curriculum.stages}
        return StageDatasets(files, self.out / DATASETS_FOLDER, lambda *_: None)

    def describe_data(self, stage: Stage) -> RunDatasetFile:
        file = describe_world_data(self.world, stage.task, self.examples, self.encoders, 0)
        if stage.data != (SHUFFLED,):
            return file
        return RunDatasetFile(f"{file.file}-{SHUFFLED}", lambda progress: shuffle_answers(file.make(progress)))

    def measure_row(self, curriculum: Curriculum, task: str, router: str, seed: int) -> dict[str, Any]:
        """Gives, by part of the target stage: {"answers": [measures of each question], "loss": [of each sample]};
        trains what it needs, if it was not measured before."""
        *_, whole = list_beginnings(curriculum)
        name = f"{self.name_beginning(whole, seed)}-{task}-{router or 'own'}-{self.asked.questions}-{self.asked.losses}"
        path = self.out / "measured" / f"{name}.json"
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        folder = self.train(curriculum, seed)
        found = {str(share): self._measure_snapshot(folder, share, task, router, seed) for share in SHARES}
        with atomic_write(path) as file:
            file.write_text(json.dumps(found), encoding="utf-8")
        return found

    def _measure_snapshot(self, folder: Path, share: float, task: str, router: str, seed: int) -> dict[str, Any]:
        path = name_snapshot(folder, share)
        bank, features = Bank.open(path), name_features(path)
        count = self.asked.questions if share == 1.0 else -(-self.asked.questions // 4)
        evaluation = Evaluation(self.world, count, HELD_OUT + seed, (task,), router)
        sampler: Sampler = sample_latents
        if features.exists():
            sampler = FeatureSampler([Features.open(features)], seed=HELD_OUT + seed)
        answers = score_answers(self.host, self.encoders, bank, task, evaluation, sampler)
        dataset = self.held_out(task, self.asked.losses, HELD_OUT + seed)
        losses = measure_losses(self.host, bank, Routing(task=task, router=router), dataset)
        return {"answers": answers, LOSS: [round(loss, LOSS_DIGITS) for loss in losses]}

    def measure_prefixes(self, plan: Plan, seeds: int) -> list[tuple[Curriculum, list[dict[str, Any]]]]:
        """Measures what the stages before the last one have learned: each beginning, and of every seed the report of its last stage's task."""
        curricula = [each for row in plan.make_rows(self.curriculum).values() for each in row.values()]
        beginnings: list[Curriculum] = []
        for curriculum in curricula:
            beginnings += [each for each in list(list_beginnings(curriculum))[:-1] if each not in beginnings]
        # stages of one iteration only make an expert for the next one
        asked = [(each, each.stages[-1].task) for each in beginnings if each.stages[-1].iterations > 1]
        return [(each, [self.measure_row(each, task, "", seed) for seed in range(seeds)]) for each, task in asked]


def list_beginnings(curriculum: Curriculum) -> Iterator[Curriculum]:
    """Lists a curriculum's first stage, its first two, and so on up to all; without its encoder until a stage needs it."""
    plain = replace(curriculum.settings, encoder="")
    for count in range(1, len(curriculum.stages) + 1):
        stages = curriculum.stages[:count]
        needed = any(stage.features != "off" for stage in stages)
        yield replace(curriculum, stages=stages, settings=curriculum.settings if needed else plain)


def shuffle_answers(dataset: MemoryDataset) -> MemoryDataset:
    """Gives every question the answer to its neighbour, which was drawn independently of it."""
    samples = dataset.samples
    ids = tuple(f"{SHUFFLED} {name}" for name in samples.ids)
    return replace(dataset, samples=replace(samples, ids=ids, target=samples.target.roll(1, 0)))


def encode_held_out(world: World, encoders: SmallEncoders, task: str, count: int, seed: int) -> MemoryDataset:
    return encode_dataset(encoders, task, [question.example for question in world.ask_held_out(task, count, seed)])


@torch.no_grad()
def measure_losses(host: Host, bank: Bank, routing: Routing, dataset: MemoryDataset) -> list[float]:
    """Measures each sample's velocity error at one of TIMES in turn, with noise that is always the same."""
    losses: list[float] = []
    every = torch.tensor(TIMES).repeat(-(-len(dataset) // len(TIMES)))[: len(dataset)]
    generator = torch.Generator().manual_seed(0)
    for start in range(0, len(dataset), CHUNK):
        samples = dataset.read_samples(range(start, min(start + CHUNK, len(dataset))))
        target = host.scale_latent(samples.target.to(host.device)).float()
        times = every[start : start + CHUNK].to(host.device)
        noise = torch.randn(target.shape, generator=generator).to(host.device)
        context, pooled, pictures = (part.to(host.device) for part in (samples.context, samples.pooled, samples.source))
        inputs = FluxInputs(add_noise(target, noise, times), times, context, pooled)
        velocity = predict_velocity(host, run_source(host, bank, routing, pictures, inputs), inputs)
        losses += task_loss(velocity, target, noise).tolist()
    return losses
