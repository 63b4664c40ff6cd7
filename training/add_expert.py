"""A stage's beginning and end: a bank gets one more expert and one more router, and what is older stays as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..prw.bank.bank import Bank
from ..prw.bank.shapes import expected_shapes, place_of
from ..prw.base_model import Base
from ..prw.config import BankInfo, ExpertInfo, RouterInfo, SourceInfo
from ..prw.tasks import TASKS
from .recipes.curriculum import Settings, Stage

NUDGE = 0.01
"""A new router column is a copy of the dominant one, this much off (our choice): it starts with about half."""
FRESH = 0.02
"""Size of the first router's weights."""


def empty_bank(base: Base, settings: Settings) -> Bank:
    return Bank(BankInfo(base=base, experts={}, routers={}, source=SourceInfo(guidance=settings.guidance)), {})


def grown(bank: Bank, stage: Stage, settings: Settings, seed: int, dominant: Mapping[str, int] | None = None) -> Bank:
    """The bank with the stage's expert, which adds nothing yet or what the one adds that it starts as, and its router.

    The router starts from the last stage's; its new column from that block's `dominant` one (0 if not given).
    """
    refuse_trained(bank, stage)
    refuse_start(bank, stage, settings)
    last = max(bank.info.routers, key=lambda name: len(bank.info.routers[name].experts), default=None)
    info = with_stage(bank.info, stage, settings, last)
    generator = torch.Generator().manual_seed(seed)
    tensors = dict(bank.tensors)
    for name, shape in expected_shapes(info).items():
        if name in tensors:
            continue
        *_, kind = name.rsplit(".", 1)
        if kind in ("down", "up") and stage.start:
            tensors[name] = as_started(bank, stage.start, name, settings)
        elif kind in ("down", "up"):
            tensors[name] = torch.randn(shape, generator=generator) * (shape[1] ** -0.5 if kind == "down" else 0.0)
        else:
            block = name.removeprefix(f"routers.{stage.name}.").rsplit(".", 1)[0]
            old = None if last is None else bank.tensors[f"routers.{last}.{block}.{kind}"].float()
            tensors[name] = widened(old, shape, (dominant or {}).get(block, 0), generator)
    return Bank(info, tensors)


def as_started(bank: Bank, start: str, name: str, settings: Settings) -> Tensor:
    """A matrix of the expert that the new one begins as, whatever its alpha and however it is stored."""
    block, target, kind = place_of(name).rsplit(".", 1)[0], *name.rsplit(".", 2)[1:]
    pair = bank.expert(start, block)[target]
    if kind == "down":
        return pair.down.float().clone()
    return pair.up.float() * (pair.scale * settings.rank / settings.alpha)


def widened(old: Tensor | None, shape: tuple[int, ...], dominant: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if old is None:
        return noise * FRESH
    column = old[:, dominant]
    return torch.cat((old, (column + NUDGE * column.std() * noise[:, -1])[:, None]), dim=1)


def with_stage(info: BankInfo, stage: Stage, settings: Settings, last: str | None) -> BankInfo:
    role = TASKS[stage.task].role if stage.task in TASKS else ""
    expert = ExpertInfo(
        rank=settings.rank,
        alpha=float(settings.alpha),
        task=stage.task,
        role=role,
        stage=len(info.experts),
        shared=stage.shared,
    )
    known = info.routers[last].experts if last else ()
    router = RouterInfo(experts=(*known, stage.name), task=stage.task)
    return replace(info, experts={**info.experts, stage.name: expert}, routers={**info.routers, stage.name: router})


def refuse_trained(bank: Bank, stage: Stage) -> None:
    if stage.name in bank.info.experts or stage.name in bank.info.routers:
        raise ValueError(
            f"The bank has an expert {stage.name} already ({', '.join(bank.info.experts)}): give the new stage another "
            f"name, or start from a bank without it."
        )


def refuse_start(bank: Bank, stage: Stage, settings: Settings) -> None:
    found = bank.info.experts.get(stage.start)
    if stage.start and (
        found is None or (found.rank, dict(found.targets)) != (settings.rank, {"k": "all", "v": "all"})
    ):
        raise ValueError(
            f"The stage {stage.name} starts as {stage.start}, but the bank has no such expert of rank {settings.rank} on "
            f"k and v: name another, or leave start out."
        )
    groups = {expert.shared for expert in bank.info.experts.values()}
    if stage.start and stage.shared in groups - {"", found.shared}:
        raise ValueError(
            f"The stage {stage.name} starts as {stage.start}, which does not share the down matrix of {stage.shared}: "
            f"start as one that does, or leave start or shared out."
        )


def refuse_along(bank: Bank, stage: Stage) -> None:
    missing = [name for name in stage.along if name not in bank.info.experts]
    if missing:
        raise ValueError(f"The stage {stage.name} trains {missing[0]} along, which the bank lacks: train it first.")


def refuse_early(info: BankInfo, stages: Sequence[Stage], settings: Settings) -> None:
    """Before the first of them, not days later: what a stage begins as or trains along must be there by then."""
    for stage in stages:
        bank = Bank(info, {})
        refuse_trained(bank, stage)
        refuse_start(bank, stage, settings)
        refuse_along(bank, stage)
        info = with_stage(info, stage, settings, None)


def own_tensors(bank: Bank, stage: Stage) -> list[str]:
    """What the stage trains: its expert and its router, and older experts only where it says so.

    A shared down matrix belongs to it unless an expert that stays as it is reads it, too.
    """
    refuse_along(bank, stage)
    experts = (stage.name, *stage.along)
    settled = {expert.shared for name, expert in bank.info.experts.items() if name not in experts}
    shared = {bank.info.experts[name].shared for name in experts} - settled - {""}
    own = (
        f"routers.{stage.name}.",
        *(f"experts.{name}." for name in experts),
        *(f"shared.{group}." for group in shared),
    )
    return sorted(name for name in bank.tensors if name.startswith(own))
