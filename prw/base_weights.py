"""Sources without a bank: the base reads them with its own weights.

This is how FLUX.2 klein 9B-KV was trained: references at timestep 0 that see only one another. On other bases it is an
approximation of their own way with references.
"""

from collections.abc import Hashable

from torch import Tensor

from .base_model import Base
from .config import BankInfo
from .experts import Expert
from .flux.blocks import FluxModel


class BaseWeights:
    """Stands where a bank stands and adds nothing in any block."""

    def __init__(self, base: Base):
        self.info = BankInfo(base)

    def expert(self, name: str, block: str) -> Expert:
        return {}

    def router(self, stage: str, block: str) -> tuple[Tensor, Tensor]:
        raise ValueError("There is no bank and so no router: connect experts to CoLoGen Apply.")

    def model(self, name: str, base: FluxModel) -> FluxModel:
        raise KeyError(name)

    def state(self) -> Hashable:
        return None
