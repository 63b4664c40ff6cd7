"""A run on a host's FLUX: what the training nodes have in common."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ...prw.bank.bank import Bank
from ..add_expert import check_untrained
from ..checkpoint.checkpoints import TrainingError
from ..checkpoint.run_folder import RUN, RunFolder, format_label
from ..coredi.trainer import make_trainer
from ..data.encoded.dataset import MemoryDataset
from ..data.encoded.samples import EncodedSamples
from ..listener import Listener
from ..monitor.log import Log
from ..monitor.samples import Samples
from ..recipes.curriculum import Curriculum, Settings, Stage
from ..run import CurriculumRun
from .training_data import TrainingData
from .training_host import INTERRUPTS, TrainingHost, spare

DATA = "data.json"


def train_on(
    model,
    data: TrainingData,
    curriculum: Curriculum,
    out: Path,
    seed: int = 0,
    bank: Bank | None = None,
    only: str = "",
    listeners: Sequence[Listener] = (),
) -> Bank:
    """All of a curriculum, or one stage of it, in a folder where it can go on; what is done is read from there."""
    host = TrainingHost(model)
    wanted = [stage for stage in curriculum.stages if only in ("", stage.name)]
    refuse_data(host, data, wanted)
    claim_data(RunFolder(out), data, taught_in(curriculum, wanted))
    memory = memory_of(host, data, curriculum.settings, wanted)
    encoders = replace(data.encoders, after=host.pushed_out)
    options = dict(
        listeners=(Log(out), Samples(out), *listeners), checkpointing_options=spare(host.flux), interrupts=INTERRUPTS
    )
    lessons = {stage.name: data.lessons[stage.task] for stage in curriculum.stages if stage.task in data.lessons}
    run = CurriculumRun(host, curriculum, lessons, encoders, out, seed, make_trainer=make_trainer, **options)
    with torch.inference_mode(False):
        bank = None if bank is None else Bank(bank.info, {name: ordinary(bank.tensors[name]) for name in bank.tensors})
        if finished(run, wanted):
            return run.train(bank, only)
    with host.training(memory):
        return run.train(bank, only)


def finished(run: CurriculumRun, wanted: Sequence[Stage]) -> bool:
    numbered = enumerate(run.curriculum.stages)
    return all(
        run.folder.stage_path(format_label(stage, number)).exists() for number, stage in numbered if stage in wanted
    )


def ordinary(tensor: torch.Tensor) -> torch.Tensor:
    """A node's tensors may be ones that autograd refuses."""
    return tensor.clone() if tensor.is_inference() else tensor


def after(bank: Bank | None, stage: Stage, settings: Settings) -> Curriculum:
    """A curriculum whose last stage is this one, and whose earlier ones are those that the bank has had."""
    if bank is None:
        return Curriculum(settings, (stage,))
    check_untrained(bank, stage)
    names = max((router.experts for router in bank.info.routers.values()), key=len, default=())
    earlier = [Stage(name=name, task=bank.info.experts[name].task) for name in names if name in bank.info.experts]
    return Curriculum(settings, (*earlier, stage))


def refuse_data(host: TrainingHost, data: TrainingData, wanted: Sequence[Stage]) -> None:
    """Before the first stage, not hours later before the last."""
    for stage in wanted:
        if stage.task not in data.lessons:
            raise TrainingError(
                f"The stage {stage.name} needs data of the task {stage.task}, there is {data}: chain another "
                f"CoLoGen Training Data."
            )
        refuse_text(host, data.lessons[stage.task].samples)


def refuse_text(host: TrainingHost, samples: EncodedSamples) -> None:
    params = host.flux.params
    found, asked = (samples.context.shape[-1], samples.pooled.shape[-1]), (params.context_in_dim, params.vec_in_dim)
    if found[0] != asked[0] or found[1] < asked[1]:
        raise TrainingError(
            f"The data's text is {found[0]} and {found[1]} numbers wide, the model reads {asked[0]} and {asked[1]}: "
            f"connect this FLUX's own CLIP."
        )


def taught_in(curriculum: Curriculum, wanted: Sequence[Stage]) -> list[Stage]:
    """Those whose samples decide the result: replay takes some of earlier ones."""
    replay = any(stage.replay for stage in wanted)
    return [stage for stage in curriculum.stages if stage in wanted or replay]


def claim_data(folder: RunFolder, data: TrainingData, taught: Sequence[Stage]) -> None:
    """Refuses a folder whose run saw other data."""
    mine = {stage.task: digest(data.lessons[stage.task]) for stage in taught if stage.task in data.lessons}
    path, begun = folder.out / DATA, (folder.out / RUN).exists()
    if not begun or not path.exists():
        folder.write_json(DATA, mine)
    elif json.loads(path.read_text(encoding="utf-8")) != mine:
        raise TrainingError(
            f"The run in {folder.out} began with other data: give this one another name, or connect the data as it was."
        )


def digest(dataset: MemoryDataset) -> str:
    samples = dataset.samples
    shapes = samples.target.shape, samples.source.shape
    seen = json.dumps([samples.ids, samples.prompts, *shapes, dataset.pixel_hash])
    return hashlib.blake2b(seen.encode(), digest_size=16).hexdigest()


def memory_of(host: TrainingHost, data: TrainingData, settings: Settings, wanted: Sequence[Stage]) -> float:
    """For the stage that takes most."""

    def one(stage: Stage) -> float:
        samples = data.lessons[stage.task].samples
        pictures = sum(part.shape[-2] * part.shape[-1] // 4 for part in (samples.target, samples.source))
        batch = settings.micro or stage.batch
        return host.memory(pictures + samples.context.shape[1], batch, settings.rank, settings.checkpointing)

    return max(map(one, wanted))
