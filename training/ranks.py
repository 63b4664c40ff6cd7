"""Several processes (torchrun) as one: sums over all of them. With one process everything is as it was."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def count() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if count() > 1 else 0


def total(value: Tensor | float, device) -> Tensor:
    """The sum of every rank's value; no gradient passes."""
    value = torch.as_tensor(value, dtype=torch.float32, device=device).detach().clone()
    if count() > 1:
        dist.all_reduce(value)
    return value


def add_up(tensors: Sequence[Tensor]) -> None:
    """In place, in one message."""
    if count() > 1:
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(part.view_as(tensor))
