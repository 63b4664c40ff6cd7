"""What a bank's routers choose on held-out samples, without noise."""

from dataclasses import replace

import torch
from torch import Tensor

from ..prw.bank.bank import Bank
from ..prw.flux.inputs import FluxInputs
from ..prw.source import Routing
from ..prw.source_pass import Host
from .data.encoded.dataset import EncodedDataset
from .forward import run_source
from .validate import make_val_batch, split_batch


@torch.no_grad()
def count_choices(host: Host, bank: Bank, dataset: EncodedDataset, router: str, micro: int) -> dict[str, Tensor]:
    """The column that each sample (or token) chooses, block by block."""
    device, routing = host.device, Routing(task=dataset.task, router=router)
    chosen: dict[str, list[Tensor]] = {}
    for batch in split_batch(make_val_batch(dataset), micro):
        target, source, pooled = (part.to(device) for part in (batch.target, batch.source, batch.pooled))
        x, times = host.scale_latent(target).float(), torch.zeros(len(target), device=device)
        for block, route in run_source(
            host, bank, routing, source, FluxInputs(x, times, batch.context, pooled)
        ).routes.items():
            chosen.setdefault(block, []).append(route.expert.flatten().cpu())
    return {block: torch.cat(parts) for block, parts in chosen.items()}


def find_dominant(host: Host, bank: Bank, dataset: EncodedDataset, micro: int) -> dict[str, int]:
    """Find which column of the last router most samples of a new task choose in each block."""
    last = max(bank.info.routers, key=lambda name: len(bank.info.routers[name].experts), default=None)
    if last is None:
        return {}
    return {
        block: int(columns.mode().values) for block, columns in count_choices(host, bank, dataset, last, micro).items()
    }


def record_usage(host: Host, bank: Bank, stage: str, dataset: EncodedDataset, micro: int) -> Bank:
    """Record in the bank what share of the blocks a stage's router gives to each expert."""
    router, columns = (
        bank.info.routers[stage],
        torch.cat(list(count_choices(host, bank, dataset, stage, micro).values())),
    )
    counts = torch.bincount(columns, minlength=len(router.experts)) / len(columns)
    usage = tuple(round(share, 4) for share in counts.tolist())
    return Bank(replace(bank.info, routers={**bank.info.routers, stage: replace(router, usage=usage)}), bank.tensors)
