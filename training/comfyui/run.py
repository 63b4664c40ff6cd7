"""A run on a host's FLUX: what the training nodes have in common."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...prw.bank.bank import Bank, require_low_rank
from ..add_expert import check_untrained
from ..checkpoint.checkpoints import TrainingError
from ..checkpoint.run_folder import RUN, RunFolder
from ..checkpoint.run_record import Knobs
from ..coredi.make_trainer import make_stage_trainer
from ..curriculum_run import CurriculumRun
from ..data.encoded.dataset import MemoryDataset
from ..listener import Listener
from ..monitor.log import Log
from ..monitor.report import Report
from ..monitor.samples import Samples
from ..recipes.curriculum import Curriculum, Settings, Stage
from .training_data import TrainingData
from .training_host import INTERRUPTS, TrainingHost, make_checkpointing_options

DATA = "data.json"
KNOBS = Knobs("give this training another name as run", {"seed": "run_seed", "subject.replay": "class_share"})
"""What the training nodes call it."""


class NodeRun(NamedTuple):
    """A node's run: its folder, seed and listeners."""

    out: Path
    """A folder where the run can go on: what is done is read from there."""
    seed: int = 0
    listeners: Sequence[Listener] = ()

    def make_options(self, host: TrainingHost) -> dict[str, Any]:
        """Makes keyword arguments that runs of curricula and of subjects have in common."""
        return dict(
            path=self.out,
            seed=self.seed,
            listeners=(Log(self.out), Samples(self.out), *self.listeners),
            checkpointing_options=make_checkpointing_options(host.flux),
            interrupts=INTERRUPTS,
            knobs=KNOBS,
        )


def train_curriculum(
    model, data: TrainingData, curriculum: Curriculum, run: NodeRun, bank: Bank | None = None, only: str = ""
) -> Bank:
    """Trains all stages of a curriculum, or the one named `only`, and returns the bank with their experts."""
    if bank is not None:
        require_low_rank(bank)
    host = TrainingHost(model)
    stages = list_stages_to_train(curriculum, bank, only)
    check_data(host, data, stages)
    record_data(RunFolder(run.out, KNOBS), data, list_sampled_stages(curriculum, stages))
    encoders = replace(data.encoders, after=host.mark_pushed_out)
    datasets = {stage.name: data.datasets[stage.task] for stage in curriculum.stages if stage.task in data.datasets}
    maps = [("control", folder, drawer) for folder, drawer in data.maps.items()]
    report = Report(run.out, curriculum, run.seed, run.out.name, maps)
    run = run._replace(listeners=(*run.listeners, report))
    training = CurriculumRun(
        host, curriculum, datasets, encoders, make_trainer=make_stage_trainer, **run.make_options(host)
    )
    with torch.inference_mode(False):
        if bank is not None:
            bank = Bank(bank.info, {name: copy_inference_tensor(bank.tensors[name]) for name in bank.tensors})
        if are_finished(training, stages):
            return training.train(bank, only)
    with host.training(estimate_memory(host, data, curriculum.settings, stages)):
        return training.train(bank, only)


def list_stages_to_train(curriculum: Curriculum, bank: Bank | None, only: str = "") -> list[Stage]:
    """Lists the stage named `only`, or all whose experts the bank does not bring."""
    if only:
        return [stage for stage in curriculum.stages if stage.name == only]
    return [stage for stage in curriculum.stages if bank is None or stage.name not in bank.info.experts]


def are_finished(run: CurriculumRun, stages: Sequence[Stage]) -> bool:
    """Says whether every stage's bank is in the run's folder."""
    return all(run.is_finished(stage, number) for number, stage in enumerate(run.recipe.stages) if stage in stages)


def copy_inference_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Copies an inference tensor: a node's tensors may be ones that autograd refuses."""
    return tensor.clone() if tensor.is_inference() else tensor


def extend_curriculum(bank: Bank | None, stage: Stage, settings: Settings) -> Curriculum:
    """Makes a curriculum whose last stage is this one, and whose earlier ones are those that the bank has had."""
    if bank is None:
        return Curriculum(settings, (stage,))
    check_untrained(bank, stage)
    last = bank.info.last_router
    names = bank.info.list_known(last) if last else ()
    earlier = [Stage(name=name, task=bank.info.experts[name].task) for name in names if name in bank.info.experts]
    return Curriculum(settings, (*earlier, stage))


def check_data(host: TrainingHost, data: TrainingData, stages: Sequence[Stage]) -> None:
    """Checks all stages' data before the first one, not hours later before the last."""
    for stage in stages:
        if stage.task not in data.datasets:
            raise TrainingError(
                f"The stage {stage.name} needs data of the task {stage.task}, there is {data}: chain another "
                f"CoLoGen Training Data."
            )
        host.check_samples(data.datasets[stage.task].samples)


def list_sampled_stages(curriculum: Curriculum, stages: Sequence[Stage]) -> list[Stage]:
    """Lists the stages whose samples decide the result: replay takes some of earlier ones."""
    replay = any(stage.replay for stage in stages)
    return [stage for stage in curriculum.stages if stage in stages or replay]


def record_data(folder: RunFolder, data: TrainingData, stages: Sequence[Stage]) -> None:
    """Records what a run is trained on; refuses a folder whose run began with other data."""
    hashes = {stage.task: hash_dataset(data.datasets[stage.task]) for stage in stages if stage.task in data.datasets}
    folder.refuse_unrecorded()
    path, has_begun = folder.path / DATA, (folder.path / RUN).exists()
    if not has_begun or not path.exists():
        folder.write_json(DATA, hashes)
    elif json.loads(path.read_text(encoding="utf-8")) != hashes:
        raise TrainingError(
            f"The run in {folder.path} began with other data: give this one another name, or connect the data as it was."
        )


def hash_dataset(dataset: MemoryDataset) -> str:
    samples = dataset.samples
    shapes = samples.target.shape, samples.source.shape
    text = json.dumps([samples.ids, samples.prompts, *shapes, dataset.pixel_hash])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def estimate_memory(host: TrainingHost, data: TrainingData, settings: Settings, stages: Sequence[Stage]) -> float:
    """Estimates bytes beside the model for the stage that takes most."""

    def estimate(stage: Stage) -> float:
        samples = data.datasets[stage.task].samples
        tokens = host.count_tokens(samples, (samples.target, samples.source))
        return host.estimate_memory(tokens, settings.micro or stage.batch, settings.rank, settings.checkpointing)

    return max(map(estimate, stages))
