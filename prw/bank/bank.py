"""A bank: experts and routers in one safetensors file, read lazily and strictly.

Which tensors it holds: shapes.py; what they mean stands as JSON in the file's metadata (info.py). Tensors are
memory-mapped: opening costs nothing, an expert is read when a block takes it, and saving copies one at a time.

A bank may hold experts that are whole models as well, `models.<name>.<the public name>` among its tensors. They come from
files of their own and stay there: no bank file holds one.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..config import BankInfo, ExpertInfo
from ..experts import LowRank, stack_ranks
from ..files.errors import BankError
from ..files.lazy_tensors import Renamed, tensor_state
from ..files.safe_file import SafeFile
from ..files.safetensors_writer import write_safetensors
from ..flux.blocks import FluxModel
from ..flux.checkpoint import build_flux
from .difference import DifferenceInfo, TemplateDifference
from .info import decode_info, encode_info
from .shapes import check_bank, down_key

METADATA_KEY = "cologen"
"""The key of a bank file's metadata that holds its JSON."""


class Bank:
    """Experts by name and routers by stage, for one shape of FLUX: the `ExpertBank` of select_experts.py."""

    def __init__(self, info: BankInfo, tensors: Mapping[str, Tensor]):
        self.info = info
        self.tensors = tensors

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Bank":
        """Reads a bank's metadata and checks its tensors against it."""
        return cls.of(SafeFile(path))

    @classmethod
    def of(cls, file: SafeFile) -> "Bank":
        """Reads an open file as `open` does."""
        info = decode_info(file.metadata.get(METADATA_KEY), file.name)
        check_bank(info, file)
        return cls(info, file)

    def save(self, path: str | os.PathLike) -> Path:
        """Writes to a temporary name beside `path` and renames: a reader sees the old file or the new."""
        require_low_rank(self)
        return write_safetensors(path, self.tensors, {METADATA_KEY: encode_info(self.info)})

    def expert(self, name: str, block: str) -> dict[str, LowRank]:
        """Reads the low-rank matrices that an expert adds in one block, by projection: its own, and those of its parents."""
        family = [self.own_pairs(each, block) for each in self.info.list_family(name)]
        if len(family) == 1:
            return family[0]
        return {target: stack_ranks([pairs[target] for pairs in family]) for target in family[0]}

    def own_pairs(self, name: str, block: str) -> dict[str, LowRank]:
        """Reads an expert's own matrices in one block, by projection: what the file holds under its name."""
        info = self.info.experts[name]
        return {target: self._read_pair(name, info, f"{block}.{target}") for target in info.targets_in(block)}

    def _read_pair(self, name: str, info: ExpertInfo, place: str) -> LowRank:
        down, up = self.tensors[down_key(name, info, place)], self.tensors[f"experts.{name}.{place}.up"]
        return LowRank(down, up, info.alpha / info.rank * self.pair_scale(name, place))

    def pair_scale(self, name: str, place: str) -> float | Tensor:
        """Gives what an expert's pair of matrices is multiplied by besides alpha / rank."""
        return self.tensors[f"experts.{name}.{place}.scale"] if self.info.experts[name].scaled else 1.0

    def router(self, stage: str, block: str) -> tuple[Tensor, Tensor]:
        """Reads W_r and W_n of eq. 2, each (dim, experts)."""
        prefix = f"routers.{stage}.{block}"
        return self.tensors[f"{prefix}.weight"], self.tensors[f"{prefix}.noise"]

    def model(self, name: str, base: FluxModel) -> FluxModel:
        """Builds an expert that is a whole model; its weights stay in their file until they are used."""
        info, tensors = self.info.models[name], select_model(self.tensors, name)
        if info.on_base:
            return TemplateDifference(DifferenceInfo(self.info.base, info.data), tensors).build(base)
        return build_flux(tensors, info.data or name)

    def state(self) -> Any:
        """Gives a value that changes whenever the tensors do."""
        return tensor_state(self.tensors)


def select_model(tensors: Mapping[str, Tensor], name: str) -> Renamed:
    """Selects the tensors of a whole model under their public names."""
    prefix = f"models.{name}."
    return Renamed(tensors, {key.removeprefix(prefix): key for key in tensors if key.startswith(prefix)})


def require_low_rank(bank: Bank) -> None:
    """Raises if some of a bank's experts are whole models, which only CoLoGen Apply takes."""
    if bank.info.models:
        raise BankError(
            f"The experts hold a whole model ({', '.join(bank.info.models)}), expected low-rank experts alone: load it "
            f"from its own file each time."
        )
