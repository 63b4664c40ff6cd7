"""What a bank's routers choose on held-out lessons, without noise."""

from dataclasses import replace

import torch
from torch import Tensor

from ..prw.bank.bank import Bank
from ..prw.flux.inputs import FluxInputs
from ..prw.source import Routing
from ..prw.source_pass import Host
from .data.encoded.dataset import EncodedDataset
from .forward import weave
from .validate import held_out, pieces


@torch.no_grad()
def choices(host: Host, bank: Bank, lessons: EncodedDataset, router: str, micro: int) -> dict[str, Tensor]:
    """The column that each sample (or token) takes, block by block."""
    device, routing = host.device, Routing(task=lessons.task, router=router)
    found: dict[str, list[Tensor]] = {}
    for batch in pieces(held_out(lessons), micro):
        target, source, pooled = (part.to(device) for part in (batch.target, batch.source, batch.pooled))
        x, times = host.latent_in(target).float(), torch.zeros(len(target), device=device)
        for block, route in weave(
            host, bank, routing, source, FluxInputs(x, times, batch.context, pooled)
        ).routes.items():
            found.setdefault(block, []).append(route.expert.flatten().cpu())
    return {block: torch.cat(parts) for block, parts in found.items()}


def dominant(host: Host, bank: Bank, lessons: EncodedDataset, micro: int) -> dict[str, int]:
    """Which column of the last router most samples of a new task take in each block."""
    last = max(bank.info.routers, key=lambda name: len(bank.info.routers[name].experts), default=None)
    if last is None:
        return {}
    return {block: int(taken.mode().values) for block, taken in choices(host, bank, lessons, last, micro).items()}


def with_usage(host: Host, bank: Bank, stage: str, lessons: EncodedDataset, micro: int) -> Bank:
    """The bank, whose stage now says what share of the blocks its router gives to each expert."""
    router, taken = bank.info.routers[stage], torch.cat(list(choices(host, bank, lessons, stage, micro).values()))
    counts = torch.bincount(taken, minlength=len(router.experts)) / len(taken)
    usage = tuple(round(share, 4) for share in counts.tolist())
    return Bank(replace(bank.info, routers={**bank.info.routers, stage: replace(router, usage=usage)}), bank.tensors)
