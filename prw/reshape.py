"""Banks made smaller: lower rank by SVD, one down matrix for several experts, half precision and fp8.

Each gives a bank whose matrices are computed when they are read, pair by pair, so that saving it never holds more than
one pair, and an `Error` that is complete once all were read.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from .bank import Bank
from .bank_info import BankError, BankInfo
from .bank_shapes import down_key, expected_shapes
from .experts import LowRank
from .identity import Same
from .renamed import check_unchanged
from .strict import short

FP8_MAX = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}


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


class Computed(Mapping):
    """A bank's tensors, those of `fresh` experts made place by place; the last place is remembered for its other parts."""

    def __init__(
        self, old: Bank, info: BankInfo, fresh: set[str], make: Callable[[str], dict[str, Tensor]], dtype: torch.dtype
    ):
        self._old, self._names, self._make, self._dtype = old, expected_shapes(info), make, dtype
        self._kept = {key for name in info.experts.keys() - fresh for key in _keys(info, name)}
        self._place, self._parts, self._self = "", {}, Same(self)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        if self._is_old(name):
            return self._old.tensors[name]
        if (place := place_of(name)) != self._place:
            self._place, self._parts = place, self._make(place)
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names, key=lambda name: (place_of(name), name)))

    def __len__(self) -> int:
        return len(self._names)

    def width(self, name: str) -> int:
        """Bytes a number takes, without computing it."""
        if self._is_old(name):
            return self._old.tensors[name].dtype.itemsize
        return 4 if name.endswith(".scale") else self._dtype.itemsize

    def _is_old(self, name: str) -> bool:
        return name.startswith("routers.") or name in self._kept

    def state(self) -> Same:
        return self._self

    def check_unchanged(self) -> None:
        check_unchanged(self._old.tensors)


def place_of(name: str) -> str:
    """double_blocks.0.k, with the expert's name before it unless experts are made together."""
    return name.split(".", 2)[2].rsplit(".", 1)[0]


def pairs_at(bank: Bank, names: Iterable[str], place: str) -> dict[str, LowRank]:
    """What experts have in a place, of those that bend it."""
    block, target = place.rsplit(".", 1)
    found = {name: bank.expert(name, block).get(target) for name in names}
    return {name: pair for name, pair in found.items() if pair is not None}


def reranked(bank: Bank, rank: int, names: Iterable[str] = ()) -> tuple[Bank, Error]:
    """Experts of lower rank: what the largest singular values of up @ down keep."""
    chosen = _chosen(bank, names)
    for name in chosen:
        if not 1 <= rank <= bank.info.experts[name].rank:
            found = bank.info.experts[name].rank
            raise BankError(f"The rank is {rank}, expected 1 to {found}, which expert {name} has: choose a lower one.")
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
            error.note(f"{name} {place}", (singular[rank:] ** 2).sum(), (singular**2).sum())
            made[f"experts.{name}.{place}.down"] = down.to(dtype)
            made[f"experts.{name}.{place}.up"] = (up * _own_scale(bank, name, place)).to(dtype)
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
            made[f"experts.{name}.{place}.up"] = (pair.up.float() @ (pair.down.float() @ down.T) * pair.scale).to(dtype)
        return made

    return Bank(info, Computed(bank, info, chosen, make, dtype)), error


def cast(bank: Bank, dtype: torch.dtype) -> tuple[Bank, Error]:
    """Experts in another precision; in fp8 each pair gets a scale, so that its largest numbers just fit. Routers stay."""
    scaled = dtype in FP8_MAX
    experts = {name: replace(expert, scaled=scaled or expert.scaled) for name, expert in bank.info.experts.items()}
    info, error = replace(bank.info, experts=experts), Error()

    def make(place: str) -> dict[str, Tensor]:
        made = {}
        for name, pair in pairs_at(bank, bank.info.experts, place).items():
            expert = info.experts[name]
            (down, by_down), (up, by_up) = (_fitted(part, dtype) for part in (pair.down, pair.up))
            made[down_key(name, expert, place)] = down
            made[f"experts.{name}.{place}.up"] = up
            if expert.scaled:
                made[f"experts.{name}.{place}.scale"] = by_down * by_up * _own_scale(bank, name, place)
            _compare(error, f"{name} {place}", pair, LowRank(down.float() * by_down, up.float() * by_up, 1.0))
        return made

    return Bank(info, Computed(bank, info, set(experts), make, dtype)), error


def _fitted(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A tensor in another type, and what it must be multiplied by to be itself again."""
    if dtype not in FP8_MAX:
        return x.to(dtype), torch.ones(())
    by = x.float().abs().amax().clamp(min=1e-12) / FP8_MAX[dtype]
    return (x.float() / by).to(dtype), by


def _compare(error: Error, place: str, old: LowRank, new: LowRank) -> None:
    """Of the products, by way of their small factors: ||UD - U'D'||."""
    ups, downs = torch.cat((old.up.float(), -new.up), 1), torch.cat((old.down.float(), new.down))
    whole = torch.linalg.qr(old.up.float())[1] @ torch.linalg.qr(old.down.float().T)[1].T
    off = torch.linalg.qr(ups)[1] @ torch.linalg.qr(downs.T)[1].T
    error.note(place, (off**2).sum(), (whole**2).sum())


def _keys(info: BankInfo, name: str) -> list[str]:
    """The tensors of one expert, a shared down matrix among them."""
    return list(expected_shapes(replace(info, experts={name: info.experts[name]}, routers={})))


def _own_scale(bank: Bank, name: str, place: str) -> Tensor:
    return bank.tensors[f"experts.{name}.{place}.scale"] if bank.info.experts[name].scaled else torch.ones(())


def _chosen(bank: Bank, names: Iterable[str]) -> set[str]:
    names = set(names) or set(bank.info.experts)
    for name in names - bank.info.experts.keys():
        raise BankError(f"The bank has no expert {short(name)}, expected one of {', '.join(bank.info.experts)}.")
    return names


def _wide(tensor: Tensor) -> torch.dtype:
    """What results of a computation are kept in: fp8 has too few digits for them."""
    return torch.bfloat16 if tensor.dtype in FP8_MAX else tensor.dtype


def _widest(bank: Bank, names: set[str]) -> torch.dtype:
    keys = (key for key in bank.tensors if key.startswith("experts.") and key.split(".")[1] in names)
    return max({_wide(bank.tensors[key]) for key in keys}, key=lambda dtype: dtype.itemsize)
