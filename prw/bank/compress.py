"""Banks made smaller: lower rank by SVD, one down matrix for several experts, half precision and fp8.

Each gives a bank whose matrices are computed when they are read, pair by pair, so that saving it never holds more than
one pair, and an `Error` that is complete once all were read.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor

from ..config import BankInfo
from ..experts import LowRank
from ..files.errors import BankError
from ..files.lazy_tensors import LazyTensors, itemsize
from ..files.validate import shorten
from .bank import Bank
from .shapes import down_key, expected_shapes, keys_of, place_of

FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


class Error:
    """How far the new products up @ down are from the old ones: the root of the squares' share, whole and worst."""

    def __init__(self):
        self.off: dict[str, tuple[float, float]] = {}

    def note(self, place: str, off: Tensor, of: Tensor) -> None:
        self.off[place] = (float(off), float(of))

    @property
    def whole(self) -> float:
        off, of = (sum(part) for part in zip(*self.off.values()))
        return (off / max(of, 1e-30)) ** 0.5

    @property
    def worst(self) -> tuple[str, float]:
        ratios = {place: (off / max(of, 1e-30)) ** 0.5 for place, (off, of) in self.off.items()}
        place = max(ratios, key=ratios.get)
        return place, ratios[place]

    def __str__(self) -> str:
        place, ratio = self.worst
        return f"error {self.whole:.2%}, at worst {ratio:.2%} in {place}"


class Computed(LazyTensors):
    """A bank's tensors, those of `fresh` experts made place by place; the last place is remembered for its other parts."""

    def __init__(
        self, old: Bank, info: BankInfo, fresh: list[str], make: Callable[[str], dict[str, Tensor]], dtype: torch.dtype
    ):
        super().__init__(dict.fromkeys(sorted(expected_shapes(info), key=lambda name: (place_of(name), name))))
        self._old, self._make, self._dtype = old, make, dtype
        self._kept = {key for name in info.experts.keys() - fresh for key in keys_of(info, name)}
        self._place, self._parts = "", {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        if self._is_old(name):
            return self._old.tensors[name]
        if (place := place_of(name)) != self._place:
            self._place, self._parts = place, self._make(place)
        return self._parts[name]

    def itemsize(self, name: str) -> int:
        if self._is_old(name):
            return itemsize(self._old.tensors, name)
        return 4 if name.endswith(".scale") else self._dtype.itemsize

    def _is_old(self, name: str) -> bool:
        return name.startswith("routers.") or name in self._kept


def pairs_at(bank: Bank, names: Iterable[str], place: str) -> dict[str, LowRank]:
    """What experts have in a place, of those that bend it."""
    block, target = place.rsplit(".", 1)
    found = {name: bank.expert(name, block).get(target) for name in names}
    return {name: pair for name, pair in found.items() if pair is not None}


def reranked(bank: Bank, rank: int, names: Iterable[str] = ()) -> tuple[Bank, Error]:
    """Experts of lower rank: what the largest singular values of up @ down keep."""
    chosen = _chosen(bank, names)
    for name in chosen:
        most = min(bank.info.experts[name].rank, bank.info.base.hidden_size)
        if not 1 <= rank <= most:
            raise BankError(f"The rank is {rank}, expected 1 to {most}, the most that expert {name} has: lower it.")
    experts = {
        name: replace(expert, rank=rank, alpha=expert.alpha / expert.rank * rank, shared="", scaled=False)
        if name in chosen
        else expert
        for name, expert in bank.info.experts.items()
    }
    info, error, dtype = replace(bank.info, experts=experts), Error(), _widest(bank, chosen)

    def make(place: str) -> dict[str, Tensor]:
        made = {}
        for name, pair in pairs_at(bank, chosen, place).items():
            down, up, singular = truncated(pair, rank)
            singular = singular * pair.scale
            error.note(f"{name} {place}", (singular[rank:] ** 2).sum(), (singular**2).sum())
            made[f"experts.{name}.{place}.down"] = _stored(down, dtype, name)
            made[f"experts.{name}.{place}.up"] = _stored(up * bank.own_scale(name, place), dtype, name)
        return made

    return Bank(info, Computed(bank, info, chosen, make, dtype)), error


def truncated(pair: LowRank, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best down and up of a rank, the square roots of the singular values in each, and all of these values."""
    q_up, r_up = torch.linalg.qr(pair.up.float())
    q_down, r_down = torch.linalg.qr(pair.down.float().T)
    u, singular, v = torch.linalg.svd(r_up @ r_down.T)
    root = singular[:rank].sqrt()
    return (v[:rank] * root[:, None]) @ q_down.T, q_up @ (u[:, :rank] * root), singular


def sharing(bank: Bank, rank: int, group: str = "shared", names: Iterable[str] = ()) -> tuple[Bank, Error]:
    """One down matrix for several experts in each place, an up matrix each: the rows that their products use most."""
    chosen = _chosen(bank, names)
    if not 1 <= rank <= (all_ranks := sum(bank.info.experts[name].rank for name in chosen)):
        raise BankError(f"The shared rank is {rank}, expected 1 to {all_ranks}, what these experts have together.")
    if users := [name for name, e in bank.info.experts.items() if e.shared == group and name not in chosen]:
        raise BankError(f"The group {group} is used by {', '.join(users)}, too: choose another name with --group.")
    experts = {
        name: replace(expert, rank=rank, alpha=float(rank), shared=group, scaled=False) if name in chosen else expert
        for name, expert in bank.info.experts.items()
    }
    info, error, dtype = replace(bank.info, experts=experts), Error(), _widest(bank, chosen)

    def make(place: str) -> dict[str, Tensor]:
        made, pairs = {}, pairs_at(bank, chosen, place)
        rows = [torch.linalg.qr(p.up.float())[1] @ p.down.float() * p.scale for p in pairs.values()]
        _, singular, v = torch.linalg.svd(torch.cat(rows), full_matrices=False)
        error.note(place, (singular[rank:] ** 2).sum(), (singular**2).sum())
        down = torch.zeros(rank, v.shape[1])
        down[: min(rank, len(v))] = v[:rank]
        made[f"shared.{group}.{place}.down"] = down.to(dtype)
        for name, pair in pairs.items():
            up = pair.up.float() @ (pair.down.float() @ down.T) * pair.scale
            made[f"experts.{name}.{place}.up"] = _stored(up, dtype, name)
        return made

    return Bank(info, Computed(bank, info, chosen, make, dtype)), error


def cast(bank: Bank, dtype: torch.dtype) -> tuple[Bank, Error]:
    """Experts in another precision; in fp8 each pair gets a scale, so that its largest numbers just fit. Routers stay."""
    scaled = dtype in FP8
    experts = {name: replace(expert, scaled=scaled or expert.scaled) for name, expert in bank.info.experts.items()}
    info, error = replace(bank.info, experts=experts), Error()

    def make(place: str) -> dict[str, Tensor]:
        made = {}
        for name, pair in pairs_at(bank, bank.info.experts, place).items():
            expert = info.experts[name]
            (down, by_down), (up, by_up) = (_fitted(part, dtype, name) for part in (pair.down, pair.up))
            made[down_key(name, expert, place)] = down
            made[f"experts.{name}.{place}.up"] = up
            if expert.scaled:
                made[f"experts.{name}.{place}.scale"] = by_down * by_up * bank.own_scale(name, place)
            _compare(error, f"{name} {place}", pair, LowRank(down.float() * by_down, up.float() * by_up, pair.scale))
        return made

    return Bank(info, Computed(bank, info, list(experts), make, dtype)), error


def _fitted(x: Tensor, dtype: torch.dtype, name: str) -> tuple[Tensor, Tensor]:
    """A tensor in another type, and what it must be multiplied by to be itself again."""
    by = x.float().abs().amax().clamp(min=1e-12) / torch.finfo(dtype).max if dtype in FP8 else torch.ones(())
    return _stored(x.float() / by, dtype, name), by


def _stored(x: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """In a type that can hold it."""
    stored = x.to(dtype)
    if not torch.isfinite(stored.float()).all():
        kind = str(dtype).removeprefix("torch.")
        raise BankError(
            f"Expert {name} has numbers that {kind} cannot hold, expected finite ones within it: convert to bfloat16, or "
            f"check the bank with cologen bank verify."
        )
    return stored


def _compare(error: Error, place: str, old: LowRank, new: LowRank) -> None:
    """Of the products, by way of their small factors: s ||UD - U'D'||, both of the scale s."""
    ups, downs = torch.cat((old.up.float(), -new.up), 1), torch.cat((old.down.float(), new.down))
    whole = torch.linalg.qr(old.up.float())[1] @ torch.linalg.qr(old.down.float().T)[1].T
    off = torch.linalg.qr(ups)[1] @ torch.linalg.qr(downs.T)[1].T
    error.note(place, (off * old.scale).square().sum(), (whole * old.scale).square().sum())


def _chosen(bank: Bank, names: Iterable[str]) -> list[str]:
    """In the bank's order."""
    names = set(names) or set(bank.info.experts)
    for name in names - bank.info.experts.keys():
        raise BankError(f"The bank has no expert {shorten(name)}, expected one of {', '.join(bank.info.experts)}.")
    return [name for name in bank.info.experts if name in names]


def wide(tensor: Tensor) -> torch.dtype:
    """What results of a computation are kept in: fp8 has too few digits for them."""
    return torch.bfloat16 if tensor.dtype in FP8 else tensor.dtype


def _widest(bank: Bank, names: list[str]) -> torch.dtype:
    keys = (key for name in names for key in keys_of(bank.info, name) if not key.endswith(".scale"))
    return reduce(torch.promote_types, {wide(bank.tensors[key]) for key in keys})
