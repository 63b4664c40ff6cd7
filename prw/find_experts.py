"""Which of a bank's routers, experts or whole models serves a source, by what its Routing asks for."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from .config import FINAL, BankInfo, RouterInfo
from .files.errors import BankError
from .files.validate import shorten
from .flux.families import FAMILIES
from .source import Routing
from .source_format import SourceFormat
from .tasks import TASKS

BASE = "base"
"""Stands in a route for no expert at all: a base that reads sources with its own weights (base_weights.py)."""
BASE_FORMAT = SourceFormat(guidance="live", position="reference")
MODEL_FORMAT = SourceFormat(position="reference")
"""How whole models were given their sources."""


def match_names(info: BankInfo, expert: str, router: str) -> tuple[str, str]:
    """Matches an expert's and a router's name as the bank writes them, however capitals were typed;
    raises if it has none of them."""
    experts, routers = (*info.experts, *info.models), (*info.routers, FINAL)
    found = _match_name(expert, experts), _match_name(router, routers)
    if found[0] and found[0] not in experts:
        raise _name_missing_expert(info, expert)
    if found[1] and found[1] not in routers:
        raise BankError(
            f"The bank has no router {shorten(router)}, expected one of {', '.join(routers)}: type one of them, or nothing "
            f"to follow the task."
        )
    return found


def _match_name(typed: str, names: Sequence[str]) -> str:
    """Finds the name that was meant; what was typed, if it is none of them."""
    alike = [name for name in names if name.casefold() == typed.casefold()]
    return alike[0] if len(alike) == 1 and typed not in names else typed


def _name_missing_expert(info: BankInfo, expert: str) -> BankError:
    names = ", ".join((*info.experts, *info.models))
    if not names:
        return BankError(
            f"There is no expert {shorten(expert)} where FLUX reads sources with its own weights, expected a bank: connect one to "
            f"CoLoGen Apply, or empty the name."
        )
    return BankError(
        f"The bank has no expert {shorten(expert)}, expected one of {names}: choose one of them or let the router choose."
    )


def resolve_names(info: BankInfo, routing: Routing) -> Routing:
    """Gives the routing with its names as the bank writes them; raises if the bank cannot serve it."""
    expert, router = match_names(info, routing.expert, routing.router)
    routing = replace(routing, expert=expert, router=router)
    if not find_model(info, routing):
        find_router(info, routing)
    return routing


def find_router(info: BankInfo, routing: Routing) -> tuple[str | None, RouterInfo]:
    """Finds the router that serves a routing: its stage, None where an expert works alone,
    and its experts in column order."""
    stage, router = _find_router(info, routing)
    check_parents(info, router.experts)
    return stage, router


def check_parents(info: BankInfo, names: Iterable[str]) -> None:
    """Raises if an expert adds to one that the bank lacks."""
    for name in names:
        *_, child, last = "", *info.list_family(name)
        if child and last not in info.experts:
            raise BankError(
                f"Expert {child} adds to {last}, which the bank lacks: merge it with the bank that has {last}."
            )


def _find_router(info: BankInfo, routing: Routing) -> tuple[str | None, RouterInfo]:
    if not info.experts and not routing.expert:
        return None, RouterInfo(experts=(BASE,), task=routing.task)
    if not routing.expert:
        return _find_task_router(info, routing.task, routing.router)
    if routing.expert not in info.experts:
        raise _name_missing_expert(info, routing.expert)
    alone = RouterInfo(experts=(routing.expert,), task=routing.task)
    try:
        stage, router = _find_task_router(info, routing.task, routing.router)
    except BankError:
        if routing.router:
            raise
        return None, alone
    # an expert that the task's router does not know still runs, alone
    return (stage, router) if routing.expert in router.experts else (None, alone)


def _find_task_router(info: BankInfo, task: str, name: str) -> tuple[str | None, RouterInfo]:
    """Finds the router of a task, or the one that `name` says: a stage, or "final" for the last one.

    A task without a router gets an expert that no router knows alone: the one of its name, or the only one
    that was made for it.
    """
    routers = info.routers
    stage = name or next((stage for stage, router in routers.items() if router.task == task), task)
    if name == FINAL:
        stage = info.last_router or task
    if stage in routers:
        missing = [expert for expert in routers[stage].experts if expert not in info.experts]
        if missing:
            raise BankError(
                f"Router {stage} chooses among {', '.join(routers[stage].experts)}, but the bank lacks "
                f"{', '.join(missing)}: merge it with the bank that has them."
            )
        return stage, routers[stage]
    alone = "" if name else _find_lone_expert(info, task)
    if alone:
        return None, RouterInfo(experts=(alone,), task=task)
    if not routers:
        raise BankError(_describe_unserved(info, stage))
    raise BankError(
        f"The bank has no router {shorten(stage)}, expected one of {', '.join(routers)}: choose a task it was "
        f"trained for, or load another bank."
    )


def _describe_unserved(info: BankInfo, stage: str) -> str:
    """Says what a bank without routers is for, which has nothing for a task, or no router of that name."""
    nodes = list(dict.fromkeys(TASKS[e.task].node for e in info.experts.values() if e.task in TASKS))
    found = f"The bank has no router and no expert for {shorten(stage)}, expected the name of one of its experts"
    use = f"use {' or '.join(nodes)}, or type it" if nodes else "type it"
    return f"{found} ({shorten(', '.join(info.experts))}): {use} as expert in CoLoGen Routing."


def _find_lone_expert(info: BankInfo, task: str) -> str:
    """Finds the expert that serves a task without a router, or ""."""
    if task in info.experts:
        return task
    routed = {name for router in info.routers.values() for name in router.experts}
    fit = [name for name, expert in info.experts.items() if expert.task == task and name not in routed]
    if len(fit) > 1:
        raise BankError(
            f"The bank has several experts for {shorten(task)} ({', '.join(fit)}), expected one that is named: "
            f"type its name as expert in CoLoGen Routing."
        )
    return fit[0] if fit else ""


def find_model(info: BankInfo, routing: Routing) -> str:
    """Finds the whole model that reads a source, by its name; "" where low-rank experts or the base do.

    Low-rank experts that were trained for the source's task come first.
    """
    if routing.expert or not info.models:
        return routing.expert if routing.expert in info.models else ""
    if info.experts and _has_router(info, routing):
        return ""
    fit = [name for name in info.models if routing.task in name.lower()] if len(info.models) > 1 else list(info.models)
    if len(fit) != 1:
        raise BankError(
            f"The experts hold several whole models ({', '.join(info.models)}), expected one that is named for "
            f"{shorten(routing.task)}: type its name as expert in CoLoGen Routing."
        )
    return fit[0]


def _has_router(info: BankInfo, routing: Routing) -> bool:
    """Says whether a bank's low-rank experts serve a routing."""
    try:
        find_router(info, routing)
    except BankError:
        return bool(routing.router)  # whoever names one is told what is wrong with it
    return True


def find_source_format(info: BankInfo, routing: Routing) -> SourceFormat:
    """Finds the source format of an expert that works alone: forced by the user, or without a router.

    Where it names no guidance, the family does.
    """
    if find_model(info, routing):
        return MODEL_FORMAT
    stage, router = find_router(info, routing)
    alone = routing.expert or (router.experts[0] if stage is None else "")
    if not info.experts:
        return BASE_FORMAT
    source_format = info.experts[alone].source_format if alone else SourceFormat()
    return replace(source_format, guidance=source_format.guidance or FAMILIES[info.base.family].source_guidance)
