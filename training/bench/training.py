"""What training a source costs: an iteration of ours against a LoRA on concatenated tokens, in one run.

The peer is what others do: the source's tokens join the picture's in FLUX's own attention, and peft's LoRA of the
same rank adapts the fused projections of both. Base, batch, optimizer and loss are the same.

Memory is what an iteration keeps for its backward pass (bytes of saved tensors, weights left out); on CUDA the
allocator's peak as well.
"""

import copy
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, UntypedStorage

from ...prw.bank.bank import Bank
from ...prw.base_model import Base
from ...prw.embedded_host import EmbeddedHost
from ...prw.flux.families import Flux
from ...prw.flux.inputs import EncodedPrompt
from ..add_expert import add_expert, make_empty_bank
from ..data.encoded.dataset import MemoryDataset
from ..data.encoded.samples import EncodedSamples
from ..forward import EMBEDDED_CHECKPOINTING
from ..objective import add_noise, compute_usage, count_usage, task_loss
from ..recipes.curriculum import Settings, Stage
from ..stage_context import StageContext
from ..stage_trainer import StageTrainer
from .shapes import Shapes
from .timing import describe_run, measure_peaks, read_clock, time_in_turn

T = TypeVar("T", bound=StageTrainer)
LORA_LAYERS = r"(double_blocks\.\d+\.img_attn\.qkv)|(single_blocks\.\d+\.linear1)"
"""FLUX's layers that the peer adapts, for peft."""


def bench_training(
    shapes: Shapes, dtype: torch.dtype, device: str, repeats: int, batch: int, checkpointing: bool = False
) -> dict:
    """Measures time and memory of an iteration, ours over the peer's,
    and what drawing batches and the veteran loss take of ours."""
    flux = shapes.make_flux(dtype, device)
    trainer = make_trainer(shapes, EmbeddedHost(flux, dtype), batch, checkpointing=checkpointing)
    steps = {"prw": trainer.train_iteration, "lora_concat": make_lora_step(copy.deepcopy(flux), trainer)}
    seconds = time_in_turn(steps, repeats, device)
    saved = {name: count_saved_bytes(step, flux) for name, step in steps.items()}
    return {
        **seconds,
        "prw_over_lora_concat": seconds["prw"] / seconds["lora_concat"],
        "memory_prw_over_lora_concat": saved["prw"] / saved["lora_concat"],
        "kept_mib": {name: count / 2**20 for name, count in saved.items()},
        "peak_mib": measure_peaks(steps, device),
        "loader_share": time_call(trainer.draw_batches, repeats, device) / seconds["prw"],
        "usage_share": time_call(make_usage_step(trainer), repeats, device) / seconds["prw"],
        "batch": batch,
        "checkpointing": checkpointing,
        **describe_run(shapes, device, dtype),
    }


def make_trainer(
    shapes: Shapes,
    host: EmbeddedHost,
    batch: int,
    kind: Callable[[StageContext, Bank], T] = StageTrainer,
    iterations: int = 10**6,
    **changes: Any,
) -> T:
    """Makes a trainer of the second stage, whose router has something to choose, on random samples;
    `changes` of Settings."""
    rank = shapes.expert_rank
    settings = Settings(rank=rank, alpha=2.0 * rank, text_drop=0.0, validate_every=0, sample_every=0, **changes)
    stages = [Stage(name=name, iterations=iterations, batch=batch) for name in ("inpaint", "ground")]
    bank = make_empty_bank(Base.of(host.flux), settings)
    for stage in stages:
        bank = add_expert(bank, stage, settings, 0)
    datasets = {name: random_samples(shapes, host.flux, name, 4 * batch) for name in ("inpaint", "ground")}
    first = datasets["ground"].samples
    empty = EncodedPrompt(first.context[:1], first.pooled[:1])
    return kind(StageContext(host, stages[1], 1, settings, datasets, empty, 0, EMBEDDED_CHECKPOINTING), bank)


def random_samples(shapes: Shapes, flux: Flux, task: str, count: int) -> MemoryDataset:
    """Makes a dataset of `count` random samples of a task."""
    g, row = torch.Generator().manual_seed(1), shapes.row
    sides = (side // row.latent_pixels for side in (shapes.target, shapes.source))
    target, source = (torch.randn(count, row.latent_channels, side, side, generator=g) for side in sides)
    context = torch.randn(count, shapes.text, flux.params.context_in_dim, generator=g)
    pooled = torch.randn(count, flux.params.vec_in_dim if row.reads_prompt else 0, generator=g)
    names = tuple(map(str, range(count)))
    return MemoryDataset(task, EncodedSamples(names, names, target, source, context, pooled))


def make_lora_step(flux: Flux, trainer: StageTrainer) -> Callable[[], None]:
    """Makes the peer's iteration, on the very batches of the trainer."""
    from peft import LoraConfig, inject_adapter_in_model

    rank = trainer.settings.rank
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LORA_LAYERS), flux)
    trained = [parameter for parameter in flux.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    device, dtype = trainer.device, trainer.host.dtype

    def step() -> None:
        for batch in trainer.draw_batches():
            target, source = (
                trainer.host.scale_latent(part.to(device)).float() for part in (batch.target, batch.source)
            )
            times, eps = batch.times.to(device), batch.noise.to(device)
            both = torch.cat((add_noise(target, eps, times), source), dim=2).to(dtype)
            context, pooled = batch.context.to(device, dtype), batch.pooled.to(device, dtype)
            guidance = torch.ones_like(times) if flux.params.guidance_embed else None
            velocity = flux(both, times, context, pooled, guidance)[:, :, : target.shape[2]]
            (task_loss(velocity, target, eps).sum() / len(target)).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def make_usage_step(trainer: StageTrainer) -> Callable[[], object]:
    """Makes a call of what the veteran loss adds: usage, its gradient and the log, from routes at hand."""
    batch = trainer.draw_batches()[0]
    with torch.no_grad():
        routes = list(trainer.measure_errors(batch, trainer.make_router_noise(batch))[1].values())
    routes = [route._replace(probs=route.probs.detach().requires_grad_(True)) for route in routes]

    def run() -> Tensor:
        compute_usage(routes, trainer.newest).backward()
        return count_usage(routes, trainer.newest + 1)

    return run


def time_call(call: Callable[[], object], repeats: int, device: str) -> float:
    """Measures median seconds."""
    times = []
    for _ in range(max(5, repeats)):
        start = read_clock(device)
        call()
        times.append(read_clock(device) - start)
    return sorted(times)[len(times) // 2]


def count_saved_bytes(step: Callable[[], object], flux: Flux) -> int:
    """Counts bytes of all that an iteration keeps for its backward passes, FLUX's own weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in flux.parameters()}
    with record_saved(weights) as saved:
        step()
    return sum(storage.nbytes() for storage in saved.values())


@contextmanager
def record_saved(left_out: set[int]) -> Generator[dict[int, UntypedStorage], None, None]:
    """Records storages that autograd keeps meanwhile, by address. None is freed before the end:
    its address would be another's."""
    saved: dict[int, UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in left_out:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield saved
