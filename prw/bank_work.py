"""Banks as people handle them: fresh, merged, split, with experts dropped or renamed. No tensor is read here."""

from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch

from .bank import Bank
from .bank_info import BankError, BankInfo, RouterInfo
from .bank_shapes import expected_shapes
from .renamed import Renamed
from .strict import short


def random_bank(info: BankInfo, seed: int = 0, up: float = 0.0, router: float = 0.02) -> Bank:
    """Fresh weights: `down` as a linear layer starts, `up` normal of the given size (0: adds nothing yet)."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"down": info.base.hidden_size**-0.5, "up": up, "weight": router, "noise": router, "scale": 1.0}
    return Bank(
        info,
        {
            name: torch.randn(shape, generator=generator) * sizes[name.rsplit(".", 1)[1]]
            for name, shape in expected_shapes(info).items()
        },
    )


def merge(banks: Iterable[Bank]) -> Bank:
    """One bank with the experts and routers of all; equal names must not mean different things."""
    banks = list(banks)
    experts, routers = {}, {}
    for bank in banks:
        if bank.info.base.refusal(banks[0].info.base):
            raise BankError("These banks are for FLUX models of different shapes: merge banks for the same base.")
        if bank.info.source != banks[0].info.source:
            raise BankError(
                f"These banks modulate their sources differently ({bank.info.source}, {banks[0].info.source}): "
                f"merge banks that were trained alike."
            )
        for kind, mine, theirs in (("expert", experts, bank.info.experts), ("router", routers, bank.info.routers)):
            for name in mine.keys() & theirs.keys():
                raise BankError(f"Two banks have {kind} {name}: rename or split one of them first.")
            mine.update(theirs)
    licences = dict.fromkeys(bank.info.licence for bank in banks if bank.info.licence)
    base = next((bank.info.base for bank in banks if bank.info.base.probe), banks[0].info.base)
    info = replace(banks[0].info, base=base, experts=experts, routers=routers, licence="; ".join(licences))
    return Bank(info, ChainMap(*(bank.tensors for bank in banks)))


def split(bank: Bank, expert: str) -> Bank:
    """One expert with its own stage's router; `merge` of all the parts is the bank again."""
    info = replace(
        bank.info,
        experts={expert: bank.info.experts[expert]},
        routers={name: router for name, router in bank.info.routers.items() if _owner(bank, router) == expert},
    )
    return Bank(info, {name: bank.tensors[name] for name in expected_shapes(info)})


def _owner(bank: Bank, router: RouterInfo) -> str:
    """The expert that a router goes with: the last it knows, as far as the bank has it."""
    return next((name for name in reversed(router.experts) if name in bank.info.experts), next(iter(bank.info.experts)))


def drop(bank: Bank, names: Iterable[str]) -> Bank:
    """Without some experts. A router loses their columns, and goes with the expert of its own stage."""
    gone = set(names)
    for name in gone - bank.info.experts.keys():
        raise BankError(f"The bank has no expert {short(name)}, expected one of {', '.join(bank.info.experts)}.")
    experts = {name: expert for name, expert in bank.info.experts.items() if name not in gone}
    if not experts:
        raise BankError("No expert would be left, expected at least one: keep one, or delete the file.")
    routers = {stage: router for stage, router in bank.info.routers.items() if router.experts[-1] not in gone}
    kept = {
        stage: [i for i, name in enumerate(router.experts) if name not in gone] for stage, router in routers.items()
    }
    routers = {
        stage: replace(router, experts=tuple(router.experts[i] for i in kept[stage]), usage=())
        if len(kept[stage]) < len(router.experts)
        else router
        for stage, router in routers.items()
    }
    info = replace(bank.info, experts=experts, routers=routers)
    columns = {stage: torch.tensor(chosen) for stage, chosen in kept.items()}

    def cut(name: str, tensor: torch.Tensor) -> torch.Tensor:
        kind, stage, _ = name.split(".", 2)
        return tensor[:, columns[stage]] if kind == "routers" else tensor

    return Bank(info, Renamed(bank.tensors, {name: name for name in expected_shapes(info)}, cut))


def rename(bank: Bank, names: Mapping[str, str]) -> Bank:
    """Experts under other names; a router that has its expert's name goes along."""
    for name in names.keys() - bank.info.experts.keys():
        raise BankError(f"The bank has no expert {short(name)}, expected one of {', '.join(bank.info.experts)}.")
    experts = {names.get(name, name): expert for name, expert in bank.info.experts.items()}
    stages = {names.get(stage, stage) for stage in bank.info.routers}
    if len(experts) < len(bank.info.experts) or len(stages) < len(bank.info.routers):
        raise BankError(f"Two would have one name ({', '.join(map(short, names.values()))}): choose another.")
    routers = {
        names.get(stage, stage): replace(router, experts=tuple(names.get(name, name) for name in router.experts))
        for stage, router in bank.info.routers.items()
    }
    old = {new: name for name, new in names.items()}
    info = replace(bank.info, experts=experts, routers=routers)
    return Bank(info, Renamed(bank.tensors, {name: _old_key(name, old) for name in expected_shapes(info)}))


def _old_key(key: str, old: Mapping[str, str]) -> str:
    kind, name, rest = key.split(".", 2)
    return key if kind == "shared" else f"{kind}.{old.get(name, name)}.{rest}"
