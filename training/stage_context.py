"""What a trainer is given, and what one of its iterations reports."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..prw.flux.inputs import EncodedPrompt
from ..prw.source_pass import Host
from .data.encoded.dataset import EncodedDataset
from .recipes.curriculum import Settings, Stage


@dataclass(frozen=True)
class StageContext:
    """What a trainer is made of beside what it trains: the host, a stage, its settings, its datasets."""

    host: Host
    stage: Stage
    number: int
    """The stage's place in its curriculum, from 0."""
    settings: Settings
    datasets: Mapping[str, EncodedDataset]
    """By task, earlier ones too."""
    empty_prompt: EncodedPrompt
    """Stands in for a dropped prompt."""
    seed: int = 0
    checkpointing_options: dict[str, Any] | None = None
    """Transformer options by which this host recomputes activations."""
    spare: int = 0
    """Iterations that earlier stages of length "auto" have left."""

    @property
    def seed_number(self) -> int:
        """What sets its random numbers apart from other stages'."""
        return zlib.crc32(self.stage.name.encode()) if self.settings.stage_seeds == "name" else self.number

    @property
    def stage_seed(self) -> int:
        return self.seed + self.seed_number


@dataclass(frozen=True)
class IterationResult:
    """The figures of one iteration, over all ranks."""

    iteration: int
    task_loss: float
    """L_task: the mean velocity error."""
    veteran_loss: float
    """L_veteran of eq. 9."""
    usage_of_newest: float
    """U_t of eq. 8, with router noise."""
    usage: tuple[float, ...]
    """Every expert's share of the blocks, in the router's order."""
    norm: float
    """Length of the gradient before clipping."""
    extra: Mapping[str, float] = field(default_factory=dict)
    """Further figures by their keys in the log."""
