"""One of two processes that share a batch, for test_objective.py."""

import os
from pathlib import Path

import pack  # noqa: F401
import torch
import torch.distributed as dist
from cologen.prw.router import route
from cologen.training.objective import usage, veteran_loss


def main(rank: int, folder: str, blocks: int, tokens: int, dim: int, experts: int) -> None:
    os.environ.update(GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    g = torch.Generator().manual_seed(0)
    h = torch.randn(blocks, 4, tokens, dim, generator=g)
    weights = [torch.randn(dim, experts, generator=g).requires_grad_() for _ in range(blocks)]
    mine = [route(h[i, 2 * rank : 2 * rank + 2], weights[i]) for i in range(blocks)]
    used = usage(mine, 1)
    grads = torch.autograd.grad(veteran_loss(used, 0.8, 0.5), weights)
    for grad in grads:  # as DDP does
        dist.all_reduce(grad)
        grad /= 2
    torch.save((float(used), list(grads)), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
