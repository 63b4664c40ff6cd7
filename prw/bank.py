"""A bank: experts and routers in one safetensors file, read lazily and strictly.

Tensors: `experts.<name>.<block>.<target>.<down|up>` and `routers.<stage>.<block>.<weight|noise>`.
What they mean stands as JSON in the file's metadata (bank_info.py). Tensors are memory-mapped:
opening costs nothing, an expert is read when a block takes it.
"""

import os
import uuid
from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from .bank_info import FINAL, BankError, BankInfo, RouterInfo, decode, encode
from .experts import LowRank
from .identity import state_of
from .safe_file import SafeFile
from .strict import short

METADATA_KEY = "cologen"
DTYPES = {"F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}


class Bank:
    """Experts by name and routers by stage, for one shape of FLUX."""

    def __init__(self, info: BankInfo, tensors: Mapping[str, Tensor]):
        self.info = info
        self.tensors = tensors

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Bank":
        file = SafeFile(path)
        info = decode(file.metadata.get(METADATA_KEY), file.path.name)
        check_tensors(info, {name: (file.shape(name), file.dtype(name)) for name in file}, file.path.name)
        return cls(info, file)

    def save(self, path: str | os.PathLike) -> Path:
        """Writes to a temporary name beside `path` and renames: a reader sees the old file or the new."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex}.part")
        temporary.touch()
        mode = temporary.stat().st_mode  # what this user's files are; safetensors would write for the owner only
        try:
            tensors = {name: self.tensors[name].detach().contiguous() for name in sorted(self.tensors)}
            try:
                save_file(tensors, temporary, {METADATA_KEY: encode(self.info)})
            except (SafetensorError, OSError) as error:
                raise BankError(
                    f"{path.name} could not be written ({error}): free some space or choose another folder."
                ) from None
            temporary.chmod(mode)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return path

    def check_unchanged(self) -> None:
        for part in getattr(self.tensors, "maps", [self.tensors]):
            if isinstance(part, SafeFile):
                part.check_unchanged()

    def expert(self, name: str, block: str) -> dict[str, LowRank]:
        """What the expert adds in one block, by target."""
        info = self.info.experts[name]
        prefix = f"experts.{name}.{block}"
        return {
            target: LowRank(
                self.tensors[f"{prefix}.{target}.down"], self.tensors[f"{prefix}.{target}.up"], info.alpha / info.rank
            )
            for target, where in info.targets.items()
            if where == "all" or block.startswith(where)
        }

    def router(self, stage: str, block: str) -> tuple[Tensor, Tensor]:
        """W_r and W_n of eq. 2, each (dim, experts)."""
        prefix = f"routers.{stage}.{block}"
        return self.tensors[f"{prefix}.weight"], self.tensors[f"{prefix}.noise"]

    def columns(self, task: str, router: str = "") -> tuple[str | None, RouterInfo]:
        """The router stage that serves a task, and its experts in column order.

        `router` names a stage outright, or "final" for the last one: the paper's single model.
        A task without a router but with an expert of its name gets that expert alone.
        """
        routers = self.info.routers
        stage = router or next((name for name, info in routers.items() if info.task == task), task)
        if router == FINAL:
            stage = max(routers, key=lambda name: len(routers[name].experts), default=task)
        if stage in routers:
            missing = [name for name in routers[stage].experts if name not in self.info.experts]
            if missing:
                raise BankError(
                    f"Router {stage} chooses among {', '.join(routers[stage].experts)}, but the bank lacks "
                    f"{', '.join(missing)}: merge it with the bank that has them."
                )
            return stage, routers[stage]
        if stage in self.info.experts and not router:
            return None, RouterInfo(experts=(stage,), task=task)
        raise BankError(
            f"The bank has no router {short(stage)}, expected one of {', '.join(routers) or 'none at all'}: "
            f"choose a task it was trained for, or load another bank."
        )

    def state(self) -> Any:
        """Changes whenever the tensors do."""
        return state_of(self.tensors)


def check_tensors(info: BankInfo, found: Mapping[str, tuple[tuple[int, ...], str]], name: str) -> None:
    """Refuses a file whose tensors are not exactly those that its metadata promises."""
    if (count := expected_count(info)) > 4 * len(found) + 4096:  # before a table is built of what a file may claim
        raise BankError(f"{name} holds {len(found)} tensors, but its metadata promises {count}: it is no valid bank.")
    expected = expected_shapes(info)
    for key in expected.keys() - found.keys():
        raise BankError(f"{name} lacks the tensor {key} that its metadata promises: download or save it again.")
    for key in found.keys() - expected.keys():
        raise BankError(f"{name} holds a tensor {short(key)} that its metadata does not name: it is no valid bank.")
    for key, (shape, dtype) in found.items():
        if shape != expected[key]:
            raise BankError(f"{name}: {key} has shape {shape}, expected {expected[key]}: it is no valid bank.")
        if dtype not in DTYPES:
            raise BankError(f"{name}: {key} is of type {dtype}, expected one of {', '.join(sorted(DTYPES))}.")


def expected_count(info: BankInfo) -> int:
    """How many tensors `expected_shapes` would name, without naming them."""
    sizes = {"double": info.base.double_blocks, "single": info.base.single_blocks}
    sizes["all"] = sum(sizes.values())
    pairs = sum(sizes[where] for expert in info.experts.values() for where in expert.targets.values())
    return 2 * (pairs + len(info.routers) * sizes["all"])


def expected_shapes(info: BankInfo) -> dict[str, tuple[int, ...]]:
    dim = info.base.hidden_size
    shapes = {}
    for name, expert in info.experts.items():
        for target, where in expert.targets.items():
            for block in info.base.blocks(where):
                shapes[f"experts.{name}.{block}.{target}.down"] = (expert.rank, dim)
                shapes[f"experts.{name}.{block}.{target}.up"] = (dim, expert.rank)
    for stage, router in info.routers.items():
        for block in info.base.blocks():
            for kind in ("weight", "noise"):
                shapes[f"routers.{stage}.{block}.{kind}"] = (dim, len(router.experts))
    return shapes


def random_bank(info: BankInfo, seed: int = 0, up: float = 0.0, router: float = 0.02) -> Bank:
    """Fresh weights: `down` as a linear layer starts, `up` normal of the given size (0: adds nothing yet)."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"down": info.base.hidden_size**-0.5, "up": up, "weight": router, "noise": router}
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
    info = replace(banks[0].info, experts=experts, routers=routers, licence="; ".join(licences))
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
