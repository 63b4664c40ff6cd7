"""A bank: experts and routers in one safetensors file, read lazily and strictly.

Which tensors it holds: bank_shapes.py; what they mean stands as JSON in the file's metadata (bank_info.py). Tensors are
memory-mapped: opening costs nothing, an expert is read when a block takes it, and saving copies one at a time.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..config import FINAL, BankInfo, ExpertInfo, RouterInfo
from ..experts import LowRank
from ..files.errors import BankError
from ..files.safe_file import SafeFile
from ..files.safetensors_writer import write
from ..files.tensor_versions import state_of
from ..files.validate import short
from .info import decode, encode
from .shapes import check_bank, down_key

METADATA_KEY = "cologen"


class Bank:
    """Experts by name and routers by stage, for one shape of FLUX."""

    def __init__(self, info: BankInfo, tensors: Mapping[str, Tensor]):
        self.info = info
        self.tensors = tensors

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Bank":
        file = SafeFile(path)
        info = decode(file.metadata.get(METADATA_KEY), file.path.name)
        check_bank(info, file)
        return cls(info, file)

    def save(self, path: str | os.PathLike) -> Path:
        """Writes to a temporary name beside `path` and renames: a reader sees the old file or the new."""
        return write(path, self.tensors, {METADATA_KEY: encode(self.info)})

    def expert(self, name: str, block: str) -> dict[str, LowRank]:
        """What the expert adds in one block, by target."""
        info = self.info.experts[name]
        return {target: self._pair(name, info, f"{block}.{target}") for target in info.targets_in(block)}

    def _pair(self, name: str, info: ExpertInfo, place: str) -> LowRank:
        down, up = self.tensors[down_key(name, info, place)], self.tensors[f"experts.{name}.{place}.up"]
        return LowRank(down, up, info.alpha / info.rank * self.own_scale(name, place))

    def own_scale(self, name: str, place: str) -> float | Tensor:
        """What a pair is multiplied by besides alpha / rank."""
        return self.tensors[f"experts.{name}.{place}.scale"] if self.info.experts[name].scaled else 1.0

    def router(self, stage: str, block: str) -> tuple[Tensor, Tensor]:
        """W_r and W_n of eq. 2, each (dim, experts)."""
        prefix = f"routers.{stage}.{block}"
        return self.tensors[f"{prefix}.weight"], self.tensors[f"{prefix}.noise"]

    def columns(self, task: str, router: str = "") -> tuple[str | None, RouterInfo]:
        """The router stage that serves a task, and its experts in column order.

        `router` names a stage outright, or "final" for the last one: the paper's single model.
        A task without a router gets an expert that no router knows alone: the one of its name, or the only one
        that was made for it.
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
        alone = "" if router else self._alone(task)
        if alone:
            return None, RouterInfo(experts=(alone,), task=task)
        if not routers:
            raise BankError(
                f"The bank has no router and no expert for {short(stage)}, expected the name of one of its experts "
                f"({short(', '.join(self.info.experts))}): type it as CoLoGen Source's expert."
            )
        raise BankError(
            f"The bank has no router {short(stage)}, expected one of {', '.join(routers)}: choose a task it was "
            f"trained for, or load another bank."
        )

    def _alone(self, task: str) -> str:
        """The expert that serves a task without a router, or ""."""
        if task in self.info.experts:
            return task
        routed = {name for info in self.info.routers.values() for name in info.experts}
        fit = [name for name, info in self.info.experts.items() if info.task == task and name not in routed]
        if len(fit) > 1:
            raise BankError(
                f"The bank has several experts for {short(task)} ({', '.join(fit)}), expected one that is named: "
                f"type its name as CoLoGen Source's expert."
            )
        return fit[0] if fit else ""

    def state(self) -> Any:
        """Changes whenever the tensors do."""
        return state_of(self.tensors)
