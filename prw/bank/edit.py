"""New banks, and banks merged, split, with experts dropped or renamed. Tensors stay where they are."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..base_model import Base
from ..config import BankInfo, RouterInfo, SourceInfo
from ..files.errors import BankError
from ..files.lazy_tensors import Merged, Renamed
from ..files.validate import shorten
from ..flux.families import FAMILIES
from .bank import Bank, require_low_rank
from .shapes import list_shapes
from .tree import flatten


def make_random_bank(info: BankInfo, seed: int = 0, up: float = 0.0, router: float = 0.02) -> Bank:
    """Makes a bank of new weights: `down` as a linear layer starts, `up` normal of the given size (0:
    adds nothing yet)."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"down": info.base.hidden_size**-0.5, "up": up, "weight": router, "noise": router}

    def fresh(kind: str, shape: tuple[int, ...]) -> Tensor:
        return torch.ones(shape) if kind == "scale" else torch.randn(shape, generator=generator) * sizes[kind]

    return Bank(info, {name: fresh(name.rsplit(".", 1)[1], shape) for name, shape in list_shapes(info).items()})


def merge(banks: Iterable[Bank]) -> Bank:
    """Merges banks into one with the experts and routers of all; equal names must not mean different things."""
    banks = list(banks)
    experts, routers, models, shared = {}, {}, {}, {}
    for bank in banks:
        _check_same_base(banks[0].info.base, bank.info.base)
        _check_shared(shared, bank)
        for kind, merged, added in (
            ("expert", experts, bank.info.experts),
            ("router", routers, bank.info.routers),
            ("expert", models, bank.info.models),
        ):
            for name in merged.keys() & added.keys():
                raise BankError(
                    f"Two banks have {kind} {name}, expected a name once: leave one of them out, or give it another name where "
                    f"you import it (name in Import Experts)."
                )
            merged.update(added)
    for name in experts.keys() & models.keys():
        raise BankError(
            f"Two banks have expert {name}, expected a name once: give one of them another where you import it (name in "
            f"Import Experts)."
        )
    licences = dict.fromkeys(bank.info.licence for bank in banks if bank.info.licence)
    base = next((bank.info.base for bank in banks if bank.info.base.probe), banks[0].info.base)
    source = _find_source_info([bank.info for bank in banks])
    info = BankInfo(base, experts, routers, source, "; ".join(licences), models)
    return Bank(info, Merged(*(bank.tensors for bank in banks)))


def _check_same_base(first: Base, other: Base) -> None:
    if first.family != other.family:
        labels = " and ".join(FAMILIES[base.family].label for base in (first, other))
        raise BankError(f"These banks are for {labels}, expected one family: merge banks for the same base.")
    if first.describe_incompatibility(other):
        raise BankError(
            "These banks are for FLUX models of different shapes, expected one: merge banks for the same base."
        )


def _check_shared(shared: dict[str, Tensor], bank: Bank) -> None:
    """Raises if a bank's shared down matrices are others than those of the same name seen so far."""
    for key in (key for key in list_shapes(bank.info) if key.startswith("shared.")):
        if not torch.equal(shared.setdefault(key, bank.tensors[key]), bank.tensors[key]):
            raise BankError(
                f"Two banks have different matrices for the group {key.split('.')[1]}, expected one name a group: share "
                f"one of them again under another name."
            )


def _find_source_info(infos: list[BankInfo]) -> SourceInfo:
    """Finds how all of them modulate their sources;
    a bank whose experts all get the picture's guidance takes anyone's."""
    infos = [info for info in infos if info.experts or info.routers] or infos
    common = next((info for info in infos if _uses_own_guidance(info)), infos[0]).source
    for info in infos:
        source = info.source if _uses_own_guidance(info) else replace(info.source, guidance=common.guidance)
        if source != common:
            raise BankError(
                f"These banks modulate their sources differently ({source}, {common}): merge banks that were trained "
                f"alike."
            )
    return common


def _uses_own_guidance(info: BankInfo) -> bool:
    return bool(info.routers) or any(not expert.source_format.guidance for expert in info.experts.values())


def split(bank: Bank, expert: str) -> Bank:
    """Gives one expert with its own stage's router; `merge` of all the parts is the bank again."""
    info = replace(
        bank.info,
        experts={expert: bank.info.experts[expert]},
        routers={name: router for name, router in bank.info.routers.items() if _find_owner(bank, router) == expert},
    )
    return _select_tensors(bank, info)


def _select_tensors(bank: Bank, info: BankInfo, change: Callable[[str, Tensor], Tensor] | None = None) -> Bank:
    return Bank(info, Renamed(bank.tensors, {name: name for name in list_shapes(info)}, change))


def _find_owner(bank: Bank, router: RouterInfo) -> str:
    """Finds the expert that a router goes with: the last of its columns that the bank has."""
    return next((name for name in reversed(router.experts) if name in bank.info.experts), next(iter(bank.info.experts)))


def drop(bank: Bank, names: Iterable[str]) -> Bank:
    """Gives the bank without some experts. A router loses their columns, and goes with the expert of its own stage;
    experts that added to one of them get what it added."""
    require_low_rank(bank)
    dropped = set(names)
    for name in dropped - bank.info.experts.keys():
        raise BankError(f"The bank has no expert {shorten(name)}, expected one of {', '.join(bank.info.experts)}.")
    experts = {name: expert for name, expert in bank.info.experts.items() if name not in dropped}
    if not experts:
        raise BankError("No expert would be left, expected at least one: keep one, or delete the file.")
    if orphans := [name for name in experts if dropped.intersection(bank.info.list_family(name))]:
        bank = flatten(bank, orphans)
        experts = {name: bank.info.experts[name] for name in experts}
    routers = {stage: router for stage, router in bank.info.routers.items() if router.experts[-1] not in dropped}
    columns = {
        stage: [i for i, name in enumerate(router.experts) if name not in dropped] for stage, router in routers.items()
    }
    routers = {
        stage: replace(router, experts=tuple(router.experts[i] for i in columns[stage]), usage=())
        if len(columns[stage]) < len(router.experts)
        else router
        for stage, router in routers.items()
    }
    info = replace(bank.info, experts=experts, routers=routers)
    indices = {stage: torch.tensor(kept) for stage, kept in columns.items()}

    def select_columns(name: str, tensor: Tensor) -> Tensor:
        kind, stage, _ = name.split(".", 2)
        return tensor[:, indices[stage]] if kind == "routers" else tensor

    return _select_tensors(bank, info, select_columns)


def rename(bank: Bank, names: Mapping[str, str]) -> Bank:
    """Gives the bank with experts under other names; a router that has its expert's name goes along."""
    require_low_rank(bank)
    for name in names.keys() - bank.info.experts.keys():
        raise BankError(f"The bank has no expert {shorten(name)}, expected one of {', '.join(bank.info.experts)}.")
    routed = {name for router in bank.info.routers.values() for name in router.experts}
    parents = {expert.parent for expert in bank.info.experts.values()}
    taken = (bank.info.experts.keys() | bank.info.routers.keys() | routed | parents) - names.keys()
    if taken & set(names.values()) or len(set(names.values())) < len(names):
        raise BankError(f"Two would have one name ({', '.join(map(shorten, names.values()))}): choose another.")
    experts = {
        names.get(name, name): replace(expert, parent=names.get(expert.parent, expert.parent))
        for name, expert in bank.info.experts.items()
    }
    routers = {
        names.get(stage, stage): replace(router, experts=tuple(names.get(name, name) for name in router.experts))
        for stage, router in bank.info.routers.items()
    }
    old_names = {new: name for name, new in names.items()}
    info = replace(bank.info, experts=experts, routers=routers)
    return Bank(info, Renamed(bank.tensors, {name: _old_key(name, old_names) for name in list_shapes(info)}))


def _old_key(key: str, old_names: Mapping[str, str]) -> str:
    kind, name, rest = key.split(".", 2)
    return key if kind == "shared" else f"{kind}.{old_names.get(name, name)}.{rest}"
