"""What training a source costs: an iteration of ours against a LoRA on concatenated tokens, in one run.

The peer is what others do: the source's tokens join the picture's in FLUX's own attention, and peft's LoRA of the
same rank bends the fused projections of both. Base, batch, optimizer and loss are the same.

Memory is what an iteration keeps for its backward pass (bytes of saved tensors, weights left out); on CUDA the
allocator's peak as well.
"""

import copy
import time
from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor

from ...prw.attachment import Host
from ...prw.base_model import Base
from ...prw.embedded_host import EmbeddedHost
from ..add_expert import empty_bank, grown
from ..data.encoded.dataset import Lessons
from ..forward import SPARE_EMBEDDED
from ..loop import StageTrainer
from ..objective import noised, task_loss, usage, usage_of_all
from ..recipes.curriculum import Settings, Stage
from ..trainer import Work
from .inference import Shapes, device_name, interleaved, peaks

LORA_LAYERS = r"(double_blocks\.\d+\.img_attn\.qkv)|(single_blocks\.\d+\.linear1)"


def training(shapes: Shapes, dtype: torch.dtype, device: str, repeats: int, batch: int, sparing: bool = False) -> dict:
    flux = shapes.flux(dtype, device)
    trainer = a_trainer(shapes, EmbeddedHost(flux, dtype), batch, checkpointing=sparing)
    peer = lora_step(copy.deepcopy(flux), trainer)
    seconds = interleaved({"prw": trainer.step, "lora_concat": peer}, repeats, device)
    kept = {name: saved_bytes(step, flux) for name, step in (("prw", trainer.step), ("lora_concat", peer))}
    return {
        **seconds,
        "prw_over_lora_concat": seconds["prw"] / seconds["lora_concat"],
        "memory_prw_over_lora_concat": kept["prw"] / kept["lora_concat"],
        "kept_mib": {name: count / 2**20 for name, count in kept.items()},
        "peak_mib": peaks({"prw": trainer.step, "lora_concat": peer}, device),
        "loader_share": timed(trainer.batches, repeats) / seconds["prw"],
        "usage_share": timed(usage_alone(trainer), repeats) / seconds["prw"],
        "batch": batch,
        "checkpointing": sparing,
        "device": device_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "shapes": vars(shapes),
    }


def a_trainer(
    shapes: Shapes, host: Host, batch: int, kind: type[StageTrainer] = StageTrainer, iterations: int = 10**6, **settings
) -> StageTrainer:
    """The second stage, whose router has something to choose."""
    rank = shapes.rank or max(1, 128 * shapes.width // 3072)
    settings = Settings(rank=rank, alpha=2.0 * rank, text_drop=0.0, validate_every=0, sample_every=0, **settings)
    stages = [Stage(name=name, iterations=iterations, batch=batch) for name in ("inpaint", "ground")]
    bank = empty_bank(Base.of(host.flux), settings)
    for stage in stages:
        bank = grown(bank, stage, settings, 0)
    lessons = {name: random_lessons(shapes, host.flux, name, 4 * batch) for name in ("inpaint", "ground")}
    empty = lessons["ground"].context[:1], lessons["ground"].pooled[:1]
    return kind(Work(host, stages[1], 1, settings, lessons, empty, 0, SPARE_EMBEDDED), bank)


def random_lessons(shapes: Shapes, flux, task: str, count: int) -> Lessons:
    g = torch.Generator().manual_seed(1)
    target, source = (
        torch.randn(count, 16, side // 8, side // 8, generator=g) for side in (shapes.target, shapes.source)
    )
    context = torch.randn(count, shapes.text, flux.params.context_in_dim, generator=g)
    pooled = torch.randn(count, flux.params.vec_in_dim, generator=g)
    names = tuple(map(str, range(count)))
    return Lessons(task, names, names, target, source, context, pooled)


def lora_step(flux, trainer: StageTrainer) -> Callable[[], None]:
    """The peer's iteration, on the very batches of the trainer."""
    from peft import LoraConfig, inject_adapter_in_model

    rank = trainer.settings.rank
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LORA_LAYERS), flux)
    own = [parameter for parameter in flux.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(own, lr=1e-4)
    device, dtype = trainer.device, trainer.host.dtype

    def step() -> None:
        for batch in trainer.batches():
            target, source = (trainer.host.latent_in(part.to(device)).float() for part in (batch.target, batch.source))
            times, eps = batch.times.to(device), batch.noise.to(device)
            both = torch.cat((noised(target, eps, times), source), dim=2).to(dtype)
            context, pooled = batch.context.to(device, dtype), batch.pooled.to(device, dtype)
            guidance = torch.ones_like(times) if flux.params.guidance_embed else None
            found = flux(both, times, context, pooled, guidance)[:, :, : target.shape[2]]
            (task_loss(found, target, eps).sum() / len(target)).backward()
        torch.nn.utils.clip_grad_norm_(own, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def usage_alone(trainer: StageTrainer) -> Callable[[], object]:
    """What the veteran loss adds: usage, its gradient and the log, from routes at hand."""
    batch = trainer.batches()[0]
    with torch.no_grad():
        routes = list(trainer.errors(batch, trainer.noise(batch))[1].values())
    routes = [replace_probs(route) for route in routes]

    def run():
        usage(routes, trainer.newest).backward()
        return usage_of_all(routes, trainer.newest + 1)

    return run


def replace_probs(route):
    return route._replace(probs=route.probs.detach().requires_grad_(True))


def timed(call: Callable[[], object], repeats: int) -> float:
    """Median seconds."""
    times = []
    for _ in range(max(5, repeats)):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def saved_bytes(step: Callable[[], object], flux) -> int:
    weights = {parameter.untyped_storage().data_ptr() for parameter in flux.parameters()}
    with counting(weights) as found:
        step()
    return sum(found.values())


@contextmanager
def counting(left_out: set[int]):
    """Storages that autograd keeps, by address, with their bytes."""
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in left_out:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield found
