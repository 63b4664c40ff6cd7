"""Banks made smaller: lower rank by SVD, one down matrix for several experts, half precision and fp8.

Each function returns a bank whose matrices are computed when they are read, pair by pair, so that saving it never holds
more than one pair, and a `RelativeError` that is complete once all were read.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor

from ..config import NAME, BankInfo
from ..experts import LowRank
from ..files.errors import BankError
from ..files.lazy_tensors import LazyTensors, itemsize
from ..files.validate import shorten
from .bank import Bank, require_low_rank
from .shapes import down_key, list_expert_keys, list_shapes, parse_place

FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


class RelativeError:
    """How far new products up @ down are from the old ones: the root of the sums of squares' ratio."""

    def __init__(self):
        self.squares: dict[str, tuple[float, float]] = {}
        """By place (block and target): the sums of squares of the difference and of the old product."""

    def add(self, place: str, difference: Tensor, product: Tensor) -> None:
        self.squares[place] = (float(difference), float(product))

    @property
    def total(self) -> float:
        """The error over all places together."""
        difference, product = (sum(part) for part in zip(*self.squares.values()))
        return _root_ratio(difference, product)

    @property
    def worst(self) -> tuple[str, float]:
        """The place where the error is largest, and the error there."""
        place = max(self.squares, key=lambda place: _root_ratio(*self.squares[place]))
        return place, _root_ratio(*self.squares[place])

    def group(self, key: Callable[[str], str]) -> dict[str, float]:
        """Gives the error over all places that a key puts together, in their order."""
        sums: dict[str, tuple[float, float]] = {}
        for place, (difference, product) in self.squares.items():
            before = sums.get(key(place), (0.0, 0.0))
            sums[key(place)] = (before[0] + difference, before[1] + product)
        return {name: _root_ratio(*pair) for name, pair in sums.items()}

    def __str__(self) -> str:
        place, ratio = self.worst
        return f"error {self.total:.2%}, at worst {ratio:.2%} in {place}"


def _root_ratio(difference: float, product: float) -> float:
    return (difference / max(product, 1e-30)) ** 0.5


class ComputedTensors(LazyTensors):
    """A bank's tensors, those of `fresh` experts made place by place; the last place is kept for its other parts."""

    def __init__(
        self, old: Bank, info: BankInfo, fresh: list[str], make: Callable[[str], dict[str, Tensor]], dtype: torch.dtype
    ):
        super().__init__(dict.fromkeys(sorted(list_shapes(info), key=lambda name: (parse_place(name), name))))
        self._old, self._make, self._dtype = old, make, dtype
        self._old_keys = {key for name in info.experts.keys() - fresh for key in list_expert_keys(info, name)}
        self._place, self._parts = "", {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        if self._is_old(name):
            return self._old.tensors[name]
        if (place := parse_place(name)) != self._place:
            self._place, self._parts = place, self._make(place)
        return self._parts[name]

    def itemsize(self, name: str) -> int:
        if self._is_old(name):
            return itemsize(self._old.tensors, name)
        return 4 if name.endswith(".scale") else self._dtype.itemsize

    def _is_old(self, name: str) -> bool:
        return name.startswith("routers.") or name in self._old_keys


def find_pairs(bank: Bank, names: Iterable[str], place: str, whole: bool = False) -> dict[str, LowRank]:
    """Finds the pairs of these experts in a place, of those that have it as a target; `whole`:
    with those of their parents."""
    block, target = place.rsplit(".", 1)
    pairs = {name: (bank.expert if whole else bank.own_pairs)(name, block).get(target) for name in names}
    return {name: pair for name, pair in pairs.items() if pair is not None}


def rerank(bank: Bank, rank: int, names: Iterable[str] = ()) -> tuple[Bank, RelativeError]:
    """Lowers the experts' rank: what the largest singular values of up @ down keep."""
    selected = choose_experts(bank, names)
    for name in selected:
        max_rank = min(bank.info.experts[name].rank, bank.info.base.hidden_size)
        if not 1 <= rank <= max_rank:
            raise BankError(f"The rank is {rank}, expected 1 to {max_rank}, the most that expert {name} has: lower it.")
    experts = {
        name: replace(expert, rank=rank, alpha=expert.alpha / expert.rank * rank, shared="", scaled=False)
        if name in selected
        else expert
        for name, expert in bank.info.experts.items()
    }
    info, error, dtype = replace(bank.info, experts=experts), RelativeError(), widest_dtype(bank, selected)

    def make(place: str) -> dict[str, Tensor]:
        tensors = {}
        for name, pair in find_pairs(bank, selected, place).items():
            down, up, singular = truncate(pair, rank)
            singular = singular * pair.scale
            error.add(f"{name} {place}", (singular[rank:] ** 2).sum(), (singular**2).sum())
            tensors[f"experts.{name}.{place}.down"] = store(down, dtype, name)
            tensors[f"experts.{name}.{place}.up"] = store(up * bank.pair_scale(name, place), dtype, name)
        return tensors

    return Bank(info, ComputedTensors(bank, info, selected, make, dtype)), error


def truncate(pair: LowRank, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gives the best down and up of a rank, the square roots of the singular values in each,
    and all of these values."""
    q_up, r_up = torch.linalg.qr(pair.up.float())
    q_down, r_down = torch.linalg.qr(pair.down.float().T)
    u, singular, v = torch.linalg.svd(r_up @ r_down.T)
    root = singular[:rank].sqrt()
    return (v[:rank] * root[:, None]) @ q_down.T, q_up @ (u[:, :rank] * root), singular


def share_down(bank: Bank, rank: int, group: str = "shared", names: Iterable[str] = ()) -> tuple[Bank, RelativeError]:
    """Gives several experts one down matrix in each place, an up matrix each: the rows that their products use most."""
    selected = choose_experts(bank, names)
    if not 1 <= rank <= (all_ranks := sum(bank.info.experts[name].rank for name in selected)):
        raise BankError(f"The shared rank is {rank}, expected 1 to {all_ranks}, what these experts have together.")
    if not NAME.fullmatch(group):
        raise BankError(
            f"The group is called {shorten(group)!r}, expected 1 to 64 letters, digits, _ and -: name another."
        )
    if users := [name for name, e in bank.info.experts.items() if e.shared == group and name not in selected]:
        raise BankError(f"The group {group} is used by {', '.join(users)}, too: choose another name with --group.")
    experts = {
        name: replace(expert, rank=rank, alpha=float(rank), shared=group, scaled=False) if name in selected else expert
        for name, expert in bank.info.experts.items()
    }
    info, error, dtype = replace(bank.info, experts=experts), RelativeError(), widest_dtype(bank, selected)

    def make(place: str) -> dict[str, Tensor]:
        tensors, pairs = {}, find_pairs(bank, selected, place)
        rows = [torch.linalg.qr(p.up.float())[1] @ p.down.float() * p.scale for p in pairs.values()]
        _, singular, v = torch.linalg.svd(torch.cat(rows), full_matrices=False)
        error.add(place, (singular[rank:] ** 2).sum(), (singular**2).sum())
        down = torch.zeros(rank, v.shape[1])
        down[: min(rank, len(v))] = v[:rank]
        tensors[f"shared.{group}.{place}.down"] = down.to(dtype)
        for name, pair in pairs.items():
            up = pair.up.float() @ (pair.down.float() @ down.T) * pair.scale
            tensors[f"experts.{name}.{place}.up"] = store(up, dtype, name)
        return tensors

    return Bank(info, ComputedTensors(bank, info, selected, make, dtype)), error


def convert(bank: Bank, dtype: torch.dtype) -> tuple[Bank, RelativeError]:
    """Converts experts to another precision; in fp8 each pair gets a scale, so that its largest numbers just fit."""
    require_low_rank(bank)
    scaled = dtype in FP8
    experts = {name: replace(expert, scaled=scaled or expert.scaled) for name, expert in bank.info.experts.items()}
    info, error = replace(bank.info, experts=experts), RelativeError()

    def make(place: str) -> dict[str, Tensor]:
        tensors = {}
        for name, pair in find_pairs(bank, bank.info.experts, place).items():
            expert = info.experts[name]
            (down, by_down), (up, by_up) = (_fit(part, dtype, name) for part in (pair.down, pair.up))
            tensors[down_key(name, expert, place)] = down
            tensors[f"experts.{name}.{place}.up"] = up
            if expert.scaled:
                tensors[f"experts.{name}.{place}.scale"] = by_down * by_up * bank.pair_scale(name, place)
            _compare(error, f"{name} {place}", pair, LowRank(down.float() * by_down, up.float() * by_up, pair.scale))
        return tensors

    return Bank(info, ComputedTensors(bank, info, list(experts), make, dtype)), error


def _fit(x: Tensor, dtype: torch.dtype, name: str) -> tuple[Tensor, Tensor]:
    """Scales a tensor to fit another type, and gives the factor that undoes it."""
    by = x.float().abs().amax().clamp(min=1e-12) / torch.finfo(dtype).max if dtype in FP8 else torch.ones(())
    return store(x.float() / by, dtype, name), by


def store(x: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """Turns a tensor into another type, if that can hold it."""
    stored = x.to(dtype)
    if not torch.isfinite(stored.float()).all():
        kind = str(dtype).removeprefix("torch.")
        raise BankError(
            f"Expert {name} has numbers that {kind} cannot hold, expected finite ones within it: convert to bfloat16, or "
            f"check the bank with cologen bank verify."
        )
    return stored


def _compare(error: RelativeError, place: str, old: LowRank, new: LowRank) -> None:
    """Adds the error of a pair: s ||UD - U'D'||, both of the scale s, by way of their small factors."""
    ups, downs = torch.cat((old.up.float(), -new.up), 1), torch.cat((old.down.float(), new.down))
    product = torch.linalg.qr(old.up.float())[1] @ torch.linalg.qr(old.down.float().T)[1].T
    difference = torch.linalg.qr(ups)[1] @ torch.linalg.qr(downs.T)[1].T
    error.add(place, (difference * old.scale).square().sum(), (product * old.scale).square().sum())


def choose_experts(bank: Bank, names: Iterable[str]) -> list[str]:
    """Chooses the experts of these names (none: all) in the bank's order."""
    require_low_rank(bank)
    names = set(names) or set(bank.info.experts)
    for name in names - bank.info.experts.keys():
        raise BankError(f"The bank has no expert {shorten(name)}, expected one of {', '.join(bank.info.experts)}.")
    return [name for name in bank.info.experts if name in names]


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """Gives the type for results of a computation: fp8 has too few digits for them."""
    return torch.bfloat16 if tensor.dtype in FP8 else tensor.dtype


def widest_dtype(bank: Bank, names: Iterable[str]) -> torch.dtype:
    """Gives the type for results of these experts' matrices."""
    keys = (key for name in names for key in list_expert_keys(bank.info, name) if not key.endswith(".scale"))
    return reduce(torch.promote_types, {wide_dtype(bank.tensors[key]) for key in keys})
