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
from .validate import MAX_SAMPLES, TIMES, make_val_batch, split_batch


@torch.no_grad()
def count_choices(
    host: Host, bank: Bank, dataset: EncodedDataset, router: str, micro: int, count: int = MAX_SAMPLES
) -> dict[str, Tensor]:
    """Counts the column that each sample (or token) chooses, block by block; where sources follow the timestep,
    at each of TIMES."""
    device, routing = host.device, Routing(task=dataset.task, router=router)
    chosen: dict[str, list[Tensor]] = {}
    for batch in split_batch(make_val_batch(dataset, count), micro):
        target, source, pooled = (part.to(device) for part in (batch.target, batch.source, batch.pooled))
        x = host.scale_latent(target).float()
        for time in TIMES if bank.info.source.follows_time else (0.0,):
            inputs = FluxInputs(x, torch.full((len(x),), time, device=device), batch.context, pooled)
            for block, route in run_source(host, bank, routing, source, inputs).routes.items():
                chosen.setdefault(block, []).append(route.expert.flatten().cpu())
    return {block: torch.cat(parts) for block, parts in chosen.items()}


def find_dominant(host: Host, bank: Bank, dataset: EncodedDataset, micro: int) -> dict[str, int]:
    """Finds which column of the last router most samples of a new task choose in each block."""
    last = bank.info.last_router
    if last is None:
        return {}
    return {
        block: int(columns.mode().values) for block, columns in count_choices(host, bank, dataset, last, micro).items()
    }


def measure_usage(
    host: Host, bank: Bank, stage: str, dataset: EncodedDataset, micro: int, count: int = MAX_SAMPLES
) -> tuple[float, ...]:
    """Measures the share of the blocks that a stage's router gives to each expert."""
    columns = torch.cat(list(count_choices(host, bank, dataset, stage, micro, count).values()))
    counts = torch.bincount(columns, minlength=len(bank.info.routers[stage].experts)) / len(columns)
    return tuple(round(share, 4) for share in counts.tolist())


def record_usage(host: Host, bank: Bank, stage: str, dataset: EncodedDataset, micro: int) -> Bank:
    """Records in the bank what share of the blocks a stage's router gives to each expert."""
    router = replace(bank.info.routers[stage], usage=measure_usage(host, bank, stage, dataset, micro))
    return Bank(replace(bank.info, routers={**bank.info.routers, stage: router}), bank.tensors)
