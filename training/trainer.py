"""What all training has in common: tensors, an optimizer, iterations that follow from a seed, and a state to go on from.

A subclass says what an iteration's loss is: loop.py for experts, subject/tuning.py for one's own subject. Everything
random follows from the seed and the iteration, so that neither a resume nor the number of ranks changes a result.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ..prw.flux.inputs import EncodedPrompt
from ..prw.source_pass import Host
from .batch import Batch, Corruption, make_batch
from .checkpoint.checkpoints import TrainingError
from .data.batch_sampler import SampleIndex, sample_indices
from .data.encoded.dataset import EncodedDataset
from .distributed import ranks
from .distributed.gradient_reducer import GradientSums
from .errors import MOST_MISSES, NotFinite, OutOfMemory
from .optimizers import load_tensors, make_optimizer, tensors_of
from .recipes.curriculum import Settings, Stage
from .schedules import factor
from .timestep_curriculum import Pacing


@dataclass(frozen=True)
class Step:
    """What an iteration says of itself."""

    iteration: int
    task: float
    """Mean velocity error."""
    veteran: float
    used: float
    """U_t of eq. 8, with noise."""
    usage: tuple[float, ...]
    """Every expert's share of the blocks, in the router's order."""
    norm: float
    """Of the gradient, before clipping."""
    besides: Mapping[str, float] = field(default_factory=dict)
    """What else was measured, by its name in the log."""


class Group(NamedTuple):
    """Tensors that are trained at one rate."""

    tensors: Mapping[str, Tensor]
    rate: float
    decays: bool = False
    """Whether weight decay pulls at them."""


@dataclass(frozen=True)
class Work:
    """A stage, and everything that is not what it trains."""

    host: Host
    stage: Stage
    number: int
    settings: Settings
    lessons: Mapping[str, EncodedDataset]
    """By task, earlier ones too."""
    empty: EncodedPrompt
    """The empty prompt."""
    seed: int = 0
    spare: dict | None = None
    """What makes this host give up activations (checkpointing)."""


def refuse_batch(stage: Stage) -> None:
    if stage.batch % ranks.count():
        raise TrainingError(
            f"The batch of {stage.name} is {stage.batch}, which {ranks.count()} processes cannot share equally: set a "
            f"multiple."
        )


class Trainer(ABC):
    columns: tuple[str, ...] = ()
    """Names for a Step's usage."""

    def __init__(self, work: Work, groups: Sequence[Group]):
        stage, settings = work.stage, work.settings
        self.host, self.stage, self.number, self.settings = work.host, stage, work.number, settings
        self.lessons, self.empty, self.seed = work.lessons, work.empty, work.seed
        self.spare = work.spare if settings.checkpointing else None
        self.device = work.host.device
        wanted = {name: tensor for group in groups for name, tensor in group.tensors.items()}
        own = {name: tensor.detach().float().to(self.device).clone() for name, tensor in wanted.items()}
        ranks.spread(own.values())
        self.trained = {name: tensor.requires_grad_(True) for name, tensor in own.items()}
        self.sums = GradientSums(list(self.trained.values()), meanwhile=not self.sharded)
        self.average = {name: tensor.detach().clone() for name, tensor in own.items()} if settings.ema else {}
        self.optimizer = make_optimizer([self._optimised(group) for group in groups], settings)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.iteration, self.pacing = 0, Pacing(settings.time_phases, settings.patience)
        self.missed, self.misses_in_a_row = 0, 0
        refuse_batch(stage)

    def _optimised(self, group: Group) -> dict:
        calm = {} if group.decays else {"weight_decay": 0.0}
        return {"params": [self.trained[name] for name in group.tensors], "lr": group.rate, **calm}

    @property
    def sharded(self) -> bool:
        return ranks.sharing(self.settings)

    def in_step(self, passes: int) -> range:
        """The passes that this rank must add to its own where weights come only when all ranks ask for them."""
        return range(ranks.most(passes, self.device) - passes if self.sharded else 0)

    @property
    def finished(self) -> bool:
        return self.iteration >= self.stage.iterations

    def step(self) -> Step | None:
        """One iteration; None if it did not fit into memory."""
        try:
            sums = self._gradients()
        except torch.OutOfMemoryError as error:
            step = None
            self._missed(error)
        else:
            self.misses_in_a_row = 0
            step = self._told(sums, self._update())
            self.pacing.hear(step.task)
        self.iteration += 1
        return step

    @abstractmethod
    def _gradients(self) -> Tensor:
        """Leaves all ranks' gradients, added up, and gives this one's parts of what the iteration says."""

    @abstractmethod
    def _told(self, sums: Tensor, norm: float) -> Step:
        """What the iteration says, from all ranks' parts."""

    def _missed(self, error: Exception) -> None:
        self.sums.clear()
        self.missed += 1
        self.misses_in_a_row += 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        # other ranks wait for this one in the middle of the iteration: they cannot skip it
        if self.misses_in_a_row >= MOST_MISSES or ranks.count() > 1:
            raise OutOfMemory(self.misses_in_a_row, self.settings.micro) from error

    def batches(self, everyone: bool = False) -> list[Batch]:
        """This rank's share of the iteration, in pieces of one task, one bucket and at most `micro` samples."""
        taught = {task: lessons.train_count for task, lessons in self.lessons.items()}
        buckets = self.lessons[self.stage.task].buckets
        all_ranks = sample_indices(self.seed, self.number, self.iteration, self.stage, taught, buckets)
        alike: dict[tuple[str, int], list[SampleIndex]] = {}
        for slot in all_ranks if everyone else all_ranks[ranks.rank() :: ranks.count()]:
            alike.setdefault((slot.task, self.lessons[slot.task].bucket(slot.index)), []).append(slot)
        size = self.settings.micro or self.stage.batch
        pieces = [some[i : i + size] for some in alike.values() for i in range(0, len(some), size)]
        opened = self.pacing.open(self.iteration / self.stage.iterations)
        corruption = Corruption(EncodedPrompt(*self.empty), self.settings.text_drop, self.settings.time_shift, opened)
        return [make_batch(self.lessons[piece[0].task], piece, corruption) for piece in pieces]

    def _refuse_infinite(self, loss: Tensor, batch: Batch) -> None:
        if not torch.isfinite(loss):
            raise NotFinite(self.stage.name, self.iteration, batch.ids)

    def _update(self) -> float:
        parameters = list(self.trained.values())
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip or torch.inf).item()
        if not math.isfinite(norm):
            ids = sum((batch.ids for batch in self.batches(everyone=True)), ())
            raise NotFinite(self.stage.name, self.iteration, ids)
        scale = factor(self.settings.schedule, self.iteration, self.stage.iterations, self.settings.warmup)
        for group, rate in zip(self.optimizer.param_groups, self.rates):
            group["lr"] = rate * scale
        self.optimizer.step()
        self.sums.clear()
        if self.average:
            self._follow()
        return norm

    @torch.no_grad()
    def _follow(self) -> None:
        # young averages forget faster, or they would remember the start for long
        decay = min(self.settings.ema, (1 + self.iteration) / (10 + self.iteration))
        for name, tensor in self.trained.items():
            self.average[name].lerp_(tensor, 1 - decay)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        tensors, rest = tensors_of(self.optimizer)
        named = {"optimizer": tensors, "trained": self.trained, "average": self.average}
        flat = {f"{kind}/{name}": tensor for kind, group in named.items() for name, tensor in group.items()}
        paced = {"pacing": self.pacing.state()} if self.pacing.phases > 1 else {}
        return flat, {"iteration": self.iteration, "missed": self.missed, "optimizer": rest, "seed": self.seed, **paced}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], state: dict) -> None:
        for kind, group in (("trained", self.trained), ("average", self.average)):
            for name, tensor in group.items():
                tensor.copy_(tensors[f"{kind}/{name}"])
        optimizer = {name.split("/", 1)[1]: t for name, t in tensors.items() if name.startswith("optimizer/")}
        load_tensors(self.optimizer, optimizer, state["optimizer"])
        self.iteration, self.missed, self.seed = state["iteration"], state["missed"], state["seed"]
        if self.pacing.phases > 1:
            self.pacing.load(state["pacing"])
