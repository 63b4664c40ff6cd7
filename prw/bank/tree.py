"""Experts that add to a parent, made experts of their own."""

from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor

from ..find_experts import check_parents
from .bank import Bank
from .compress import ComputedTensors, choose_experts, find_pairs, store, widest_dtype


def flatten(bank: Bank, names: Iterable[str] = ()) -> Bank:
    """Gives the bank with some experts (none named: all) without parents: theirs is what they and these add,
    rank behind rank."""
    selected = [name for name in choose_experts(bank, names) if bank.info.experts[name].parent]
    if not selected:
        return bank
    check_parents(bank.info, selected)
    families = {name: bank.info.list_family(name) for name in selected}
    experts = dict(bank.info.experts)
    for name in selected:
        own, rank = experts[name], sum(bank.info.experts[each].rank for each in families[name])
        experts[name] = replace(own, rank=rank, alpha=float(rank), shared="", scaled=False, parent="")
    dtypes = {name: widest_dtype(bank, families[name]) for name in selected}

    def make(place: str) -> dict[str, Tensor]:
        tensors = {}
        for name, pair in find_pairs(bank, selected, place, whole=True).items():
            tensors[f"experts.{name}.{place}.down"] = pair.down.to(dtypes[name])
            tensors[f"experts.{name}.{place}.up"] = store(pair.up.float() * pair.scale, dtypes[name], name)
        return tensors

    info = replace(bank.info, experts=experts)
    return Bank(info, ComputedTensors(bank, info, selected, make, widest_dtype(bank, {*sum(families.values(), [])})))
