"""Training at its smallest: a FLUX of width 32 and random datasets. As a script it is `cologen` on it."""

import sys
import time

import numpy as np
import pack  # noqa: F401
import torch
from cologen.prw.base_model import Base
from cologen.prw.embedded_host import EmbeddedHost
from cologen.training.add_expert import add_expert, make_empty_bank
from cologen.training.base.random_models import random_flux
from cologen.training.coredi.make_trainer import make_stage_trainer
from cologen.training.curriculum_run import CurriculumRun
from cologen.training.data.encoded.dataset import MemoryDataset
from cologen.training.data.encoded.samples import EncodedSamples
from cologen.training.forward import EMBEDDED_CHECKPOINTING
from cologen.training.recipes.curriculum import make_curriculum
from cologen.training.setup import build_run
from cologen.training.stage_context import StageContext
from cologen.training.stage_trainer import StageTrainer

SHAPE = dict(num_heads=2, depth=1, depth_single_blocks=2, context_in_dim=8, vec_in_dim=4, guidance_embed=False)
SMALL = dict(SHAPE, hidden_size=32, axes_dim=(4, 6, 6))
REAL_HEADS = dict(SHAPE, hidden_size=256)
"""For naive.py, whose rotations are FLUX's own."""
TASKS = ("inpaint", "ground", "edit")


def tiny_host(shape=SMALL) -> EmbeddedHost:
    return EmbeddedHost(random_flux(3, gain=1.0, **shape), torch.float32)


def tiny_dataset(task: str, count=12, side=4, channels=16, text=8, pooled_width=4) -> MemoryDataset:
    g = torch.Generator().manual_seed(len(task))
    target, source = (torch.randn(count, channels, side, side, generator=g) for _ in range(2))
    context, pooled = torch.randn(count, 3, text, generator=g), torch.randn(count, pooled_width, generator=g)
    ids, prompts = (
        tuple(f"{name}{i}{end}" for i in range(count)) for name, end in ((f"{task}-", ""), ("prompt <", ">"))
    )
    return MemoryDataset(task, EncodedSamples(ids, prompts, target, source, context, pooled))


class TinyEncoders:
    def __init__(self, text=8, pooled_width=4):
        self.text, self.pooled_width = text, pooled_width

    def encode_prompts(self, prompts):
        return torch.ones(len(prompts), 2, self.text), torch.ones(len(prompts), self.pooled_width)

    def decode(self, latents):
        grey = latents[:, :3].float().sigmoid().mul(255).byte().movedim(1, -1).numpy()
        return np.repeat(np.repeat(grey, 8, 1), 8, 2)


def tiny_curriculum(
    iterations=5, stages=TASKS, batch=4, rho=0.8, veteran=0.5, replay=0.0, route="", columns="all", **settings
):
    shared = dict(rank=2, alpha=4.0, resolution=32, rate=3e-3, router_rate=3e-3, save_every=2, validate_every=0)
    own = dict(
        iterations=iterations, batch=batch, rho=rho, veteran=veteran, replay=replay, route=route, columns=columns
    )
    tables = [dict(name=name, **own) for name in stages]
    return make_curriculum({**shared, "sample_every": 0, **settings, "stages": tables})


def text_widths(host) -> dict[str, int]:
    """How wide the text and the pooled prompt are that a FLUX reads."""
    params = host.flux.params
    return {"text": params.context_in_dim, "pooled_width": getattr(params, "vec_in_dim", 0)}


def tiny_trainer(host, stage=1, older=0.3, up=0.2, **changes) -> StageTrainer:
    """At the start of a stage whose older experts know something."""
    curriculum = tiny_curriculum(**changes)
    settings, stages = curriculum.settings, curriculum.stages
    bank = make_empty_bank(Base.of(host.flux), settings)
    generator = torch.Generator().manual_seed(5)
    for number in range(stage + 1):
        bank = add_expert(bank, stages[number], settings, number)
        for name, tensor in bank.tensors.items():
            if name.startswith("routers.") and name.split(".")[1] == stages[number].name:
                tensor.copy_(older * torch.randn(tensor.shape, generator=generator))
            elif name.endswith(".up") and name.split(".")[1] == stages[number].name:
                tensor.copy_(up * torch.randn(tensor.shape, generator=generator))
    widths, channels = text_widths(host), host.family.latent_channels
    datasets = {each.task: tiny_dataset(each.task, channels=channels, **widths) for each in stages[: stage + 1]}
    empty = TinyEncoders(**widths).encode_prompts([""])
    return StageTrainer(
        StageContext(host, stages[stage], stage, settings, datasets, empty, 7, EMBEDDED_CHECKPOINTING), bank
    )


def tiny_run(out, curriculum, host=None, listeners=(), datasets=None, seed=7) -> CurriculumRun:
    datasets = datasets or {task: tiny_dataset(task) for task in TASKS}
    around = (host or tiny_host(), curriculum, datasets, TinyEncoders(), out, seed, "tiny")
    return CurriculumRun(*around, listeners, EMBEDDED_CHECKPOINTING, make_trainer=make_stage_trainer)


def tiny_inputs(curriculum, out, device, seed, share, progress) -> build_run.RunInputs:
    datasets = {task: tiny_dataset(task) for task in TASKS}
    return build_run.RunInputs(tiny_host(), TinyEncoders(), datasets, "tiny", EMBEDDED_CHECKPOINTING)


def gradients(trainer) -> dict[str, torch.Tensor]:
    """One iteration without its step: what the optimizer would have been given, and what the iteration says."""
    found = {}
    trainer.weights.optimizer.step = lambda: found.update({n: t.grad.clone() for n, t in trainer.trained.items()})
    step = trainer.train_iteration()
    trainer.iteration -= 1
    del trainer.weights.optimizer.step
    return found, step


def wait_for(condition, seconds=60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


if __name__ == "__main__":
    from cologen.training.cli.main import main

    torch.set_num_threads(1)
    build_run.open_run_inputs = tiny_inputs
    sys.exit(main(sys.argv[1:]))
