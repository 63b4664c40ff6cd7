"""Several processes (torchrun) as one: sums over all of them. With one process everything is as it was."""

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..recipes.curriculum import Settings

RESTARTS = "TORCHELASTIC_RESTART_COUNT"
PATIENCE = timedelta(days=7)
"""One rank may make a base for hours while the others wait; torchrun sees it if one is gone."""


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


def is_sharded(settings: Settings) -> bool:
    """Says whether the processes share the base's blocks (fsdp.py)."""
    return settings.shard and world_size() > 1


@contextmanager
def join(device: str) -> Generator[str]:
    """Joins the processes that torchrun has started, if it has; yields this one's device."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield device
        return
    cuda = device.startswith("cuda")
    if cuda:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    store, number, world = next(dist.rendezvous("env://", timeout=PATIENCE))
    # torchrun keeps its store over a restart: without a name of their own the new processes would call the lost ones
    own = dist.PrefixStore(f"start {os.environ.get(RESTARTS, '0')}", store)
    dist.init_process_group("nccl" if cuda else "gloo", store=own, rank=number, world_size=world, timeout=PATIENCE)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def barrier() -> None:
    """Waits until every rank is here."""
    if world_size() > 1:
        dist.barrier()


@contextmanager
def main_process_first() -> Generator[None]:
    """Lets the first rank in alone, the others when it is out: they find what it has written."""
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()


def broadcast_object(value: Any) -> Any:
    """Gives the first rank's value, for all: what a folder holds, which another node may see a moment later."""
    if world_size() > 1:
        values = [value]
        dist.broadcast_object_list(values, 0)
        (value,) = values
    return value


def was_restarted() -> bool:
    """Says whether torchrun has started its processes again after one of them was lost."""
    return os.environ.get(RESTARTS, "0") != "0"


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Copies the first rank's tensors to all, in place."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def max_over_ranks(value: int, device: torch.device | str) -> int:
    """Gives the largest of every rank's values."""
    result = torch.tensor(value, device=device)
    if world_size() > 1:
        dist.all_reduce(result, dist.ReduceOp.MAX)
    return int(result)


def sum_over_ranks(value: Tensor | Sequence[float] | float, device: torch.device | str) -> Tensor:
    """Sums over all ranks, element by element; no gradient passes."""
    value = torch.as_tensor(value, dtype=torch.float32, device=device).detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
    return value
