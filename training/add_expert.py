"""A stage's beginning: a bank gets one more expert and one more router, and what is older stays as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..prw.bank.bank import Bank, require_low_rank
from ..prw.bank.shapes import list_shapes, parse_place
from ..prw.base_model import Base
from ..prw.config import BankInfo, ExpertInfo, RouterInfo, SourceInfo
from ..prw.find_experts import check_parents
from ..prw.tasks import TASKS
from .recipes.curriculum import Settings, Stage

COLUMN_NOISE = 0.01
"""Our choice: a new router column is a copy of the dominant one plus this share of noise, so it starts with about half."""
KEYS_AND_VALUES = {"k": "all", "v": "all"}
"""What a stage's expert changes."""
ROUTER_STD = 0.02
"""Standard deviation of the first router's weights (our choice)."""


def make_empty_bank(base: Base, settings: Settings) -> Bank:
    source = SourceInfo(time=settings.source_time or "zero", guidance=settings.guidance)
    return Bank(BankInfo(base=base, experts={}, routers={}, source=source), {})


def add_expert(
    bank: Bank, stage: Stage, settings: Settings, seed: int, dominant: Mapping[str, int] | None = None
) -> Bank:
    """Adds the stage's expert, which adds nothing yet or starts as a copy of `stage.start`, and its router.

    The router starts from the last stage's; its new column from that block's `dominant` one (0 if not given).
    """
    check_untrained(bank, stage)
    check_start(bank, stage, settings)
    check_parent(bank.info, stage)
    last, info = bank.info.last_router, extend_info(bank.info, stage, settings)
    columns = info.routers[stage.name].experts
    kept = [i for i, name in enumerate(bank.info.routers[last].experts) if name in columns] if last else []
    generator = torch.Generator().manual_seed(seed)
    tensors = dict(bank.tensors)
    for name, shape in list_shapes(info).items():
        if name in tensors:
            continue
        *_, kind = name.rsplit(".", 1)
        if kind in ("down", "up") and stage.start:
            tensors[name] = copy_matrix(bank, stage.start, name, settings)
        elif kind in ("down", "up"):
            tensors[name] = torch.randn(shape, generator=generator) * (shape[1] ** -0.5 if kind == "down" else 0.0)
        else:
            block = name.removeprefix(f"routers.{stage.name}.").rsplit(".", 1)[0]
            old = None if last is None else bank.tensors[f"routers.{last}.{block}.{kind}"].float()
            tensors[name] = widen_router(old, shape, (dominant or {}).get(block, 0), generator, kept)
    return Bank(info, tensors)


def copy_matrix(bank: Bank, start: str, name: str, settings: Settings) -> Tensor:
    """Copies a matrix of the expert that a new one starts as, whatever its alpha and however it is stored;
    their parent is one."""
    block, target, kind = parse_place(name).rsplit(".", 1)[0], *name.rsplit(".", 2)[1:]
    pair = bank.own_pairs(start, block)[target]
    if kind == "down":
        return pair.down.float().clone()
    return pair.up.float() * (pair.scale * settings.rank / settings.alpha)


def widen_router(
    old: Tensor | None, shape: tuple[int, ...], dominant: int, generator: torch.Generator, kept: Sequence[int]
) -> Tensor:
    """Makes a router's matrix: the last one's kept columns, and a new one like its dominant column."""
    noise = torch.randn(shape, generator=generator)
    if old is None:
        return noise * ROUTER_STD
    column = old[:, dominant]
    return torch.cat((old[:, kept], (column + COLUMN_NOISE * column.std() * noise[:, -1])[:, None]), dim=1)


def extend_info(info: BankInfo, stage: Stage, settings: Settings) -> BankInfo:
    """Adds the stage's expert and router; it routes as the last router does, if the stage does not say how.

    Its router chooses among leaves: what the expert adds to is no choice of its own any more.
    """
    role = TASKS[stage.task].role if stage.task in TASKS else ""
    expert = ExpertInfo(
        rank=stage.rank or settings.rank,
        alpha=float(settings.alpha if not stage.rank else settings.alpha / settings.rank * stage.rank),
        task=stage.task,
        role=role,
        stage=len(info.experts),
        shared=stage.shared,
        parent=stage.parent,
    )
    above = info.list_family(stage.parent) if stage.parent else []
    last = info.routers[info.last_router] if info.last_router else RouterInfo((stage.name,))
    known = [name for name in last.experts if name not in above] if info.last_router else []
    router = RouterInfo(experts=(*known, stage.name), task=stage.task, per=stage.route or last.per)
    return replace(info, experts={**info.experts, stage.name: expert}, routers={**info.routers, stage.name: router})


def check_untrained(bank: Bank, stage: Stage) -> None:
    require_low_rank(bank)
    if stage.name in bank.info.experts or stage.name in bank.info.routers:
        raise ValueError(
            f"The bank has an expert {stage.name} already ({', '.join(bank.info.experts)}): give the new stage another "
            f"name, or start from a bank without it."
        )


def check_start(bank: Bank, stage: Stage, settings: Settings) -> None:
    start, rank = bank.info.experts.get(stage.start), stage.rank or settings.rank
    if stage.start and (start is None or (start.rank, dict(start.targets)) != (rank, KEYS_AND_VALUES)):
        raise ValueError(
            f"The stage {stage.name} starts as {stage.start}, but the bank has no such expert of rank {rank} on k and v: name "
            f"another, or leave start out."
        )
    if start is not None and start.parent != stage.parent:
        raise ValueError(
            f"The stage {stage.name} starts as {stage.start}, whose parent is {start.parent or 'none'}, expected "
            f"{stage.parent or 'none'}: they differ from other things. Name another, or leave start out."
        )
    groups = {expert.shared for expert in bank.info.experts.values()}
    if start is not None and stage.shared in groups - {"", start.shared}:
        raise ValueError(
            f"The stage {stage.name} starts as {stage.start}, which does not share the down matrix of {stage.shared}: "
            f"start as one that does, or leave start or shared out."
        )


def check_parent(info: BankInfo, stage: Stage) -> None:
    if not stage.parent:
        return
    parent = info.experts.get(stage.parent)
    if parent is None or dict(parent.targets) != KEYS_AND_VALUES:
        raise ValueError(
            f"The stage {stage.name} adds to {stage.parent}, but the bank has no such expert on k and v "
            f"({', '.join(info.experts) or 'none at all'}): name another, or leave parent out."
        )
    check_parents(info, [stage.parent])


def check_source_time(info: BankInfo, settings: Settings) -> None:
    if settings.source_time not in ("", info.source.time):
        raise ValueError(
            f"The recipe's source_time is {settings.source_time}, but the bank's sources have the time {info.source.time}, "
            f"which its experts were trained with: leave source_time out, or start without this bank."
        )


def check_features(info: BankInfo, stage: Stage) -> None:
    if stage.features != "off" and info.routers[stage.name].per == "token":
        raise ValueError(
            f'The stage {stage.name} learns features and routes each token, expected one of the two: set route = "sample" '
            f'or features = "off".'
        )


def check_along(bank: Bank, stage: Stage) -> None:
    missing = [name for name in stage.along if name not in bank.info.experts]
    if missing:
        raise ValueError(f"The stage {stage.name} trains {missing[0]} along, which the bank lacks: train it first.")
    for name in bank.info.experts.keys() - {stage.name, *stage.along}:
        if above := sorted({*bank.info.list_family(name)} & {*stage.along}):
            raise ValueError(
                f"The stage {stage.name} trains {above[0]} along, which {name} adds to: train {name} along, too, or neither."
            )


def check_stages(info: BankInfo, stages: Sequence[Stage], settings: Settings) -> None:
    """Checks before the first stage, not days later, that each can be trained on what will be there by then."""
    check_source_time(info, settings)
    for stage in stages:
        bank = Bank(info, {})
        check_untrained(bank, stage)
        check_start(bank, stage, settings)
        check_parent(info, stage)
        check_along(bank, stage)
        info = extend_info(info, stage, settings)
        check_features(info, stage)


def list_trained(bank: Bank, stage: Stage) -> list[str]:
    """Lists the tensors that a stage trains: its expert and its router, and older experts only where it says so.

    A shared down matrix belongs to it unless an expert that stays as it is reads it, too.
    """
    check_along(bank, stage)
    experts = (stage.name, *stage.along)
    settled = {expert.shared for name, expert in bank.info.experts.items() if name not in experts}
    shared = {bank.info.experts[name].shared for name in experts} - settled - {""}
    own = (
        f"routers.{stage.name}.",
        *(f"experts.{name}." for name in experts),
        *(f"shared.{group}." for group in shared),
    )
    return sorted(name for name in bank.tensors if name.startswith(own))
