"""The training loop: what an iteration does, whatever its loss.

Everything random follows from the seed and the iteration: neither a resume nor the number of ranks changes a result.
run.py calls train_iteration; the losses: stage_trainer.py, coredi/trainer.py, subject/trainer.py.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..prw.files.validate import check_range
from ..prw.router import Route
from .batch import Batch, BatchSettings, make_batch
from .check_processes import check_batch_size
from .data.batch_sampler import sample_indices
from .distributed import ranks
from .distributed.fsdp import match_passes
from .errors import MAX_SKIPPED, NonFiniteLoss, OutOfMemory
from .micro_batches import split_into_micro_batches
from .optimizers import ParamGroup
from .stage_context import IterationResult, StageContext
from .stage_length import StageLength
from .timestep_schedule import TimestepSchedule
from .trained_weights import TrainedWeights


class Trainer(ABC):
    """Trains named tensors on a frozen FLUX, iteration by iteration; a subclass says what the loss is."""

    expert_names: tuple[str, ...] = ()
    """Names of the experts in an IterationResult's usage."""
    task_sum: Tensor
    """L_task of this rank's micro-batches so far."""

    def __init__(self, context: StageContext, groups: Sequence[ParamGroup]):
        check_batch_size(context.stage)
        stage, settings = context.stage, context.settings
        self.host, self.stage, self.stage_number, self.settings = context.host, stage, context.number, settings
        self.datasets, self.empty_prompt = context.datasets, context.empty_prompt
        self.seed, self.seed_number = context.seed, context.seed_number
        self.checkpointing_options = context.checkpointing_options if settings.checkpointing else None
        self.device = context.host.device
        self.weights = TrainedWeights(groups, settings, self.device)
        self.trained = self.weights.trained
        self.timestep_schedule = TimestepSchedule(settings.time_phases, settings.patience)
        self.length = StageLength(stage, settings, context.spare)
        self.iteration, self.skipped, self.skipped_in_a_row = 0, 0, 0

    @property
    def finished(self) -> bool:
        return self.iteration >= self.length.end

    def train_iteration(self) -> IterationResult | None:
        """Draws the batch, takes its gradient, clips it, updates the weights;
        None if the batch did not fit into memory."""
        result = None
        try:
            self.compute_gradients(self.draw_batches())
        except torch.OutOfMemoryError as error:
            self._skip(error)
        else:
            self.skipped_in_a_row = 0
            norm = self._clip_gradients()
            self.weights.step(self.iteration, self.length.compute_rate_factor(self.iteration))
            result = self.summarize(norm)
            self.timestep_schedule.update(result.task_loss)
        self.iteration += 1
        return result

    def compute_gradients(self, batches: Sequence[Batch]) -> None:
        """Leaves the gradients of all micro-batches and all ranks, added up."""
        self.task_sum = torch.zeros((), device=self.device)
        with self.attach_weights():
            self.prepare(batches)
            for batch in batches:
                loss = self.compute_loss(batch)
                if not torch.isfinite(loss):
                    raise NonFiniteLoss(self.stage.name, self.iteration, batch.ids)
                self.weights.gradients.backward(loss, last=batch is batches[-1])

    @abstractmethod
    def compute_loss(self, batch: Batch) -> Tensor:
        """Computes the loss of a micro-batch, as its part of the whole batch's; adds to `task_sum`."""

    @abstractmethod
    def compute_training_errors(self, batch: Batch) -> Tensor:
        """Computes the velocity's error of every sample, with gradients to what is trained."""

    @abstractmethod
    def summarize(self, norm: float) -> IterationResult:
        """Adds up what all ranks have measured; `norm` is the gradient's length."""

    @abstractmethod
    def measure_errors(self, batch: Batch) -> tuple[Tensor, dict[str, Route]]:
        """Measures the velocity's error of every sample and its routes, with the weights that would be left now,
        for validation."""

    def attach_weights(self) -> AbstractContextManager[None]:
        """Gives a context in which FLUX computes with the trained weights;
        a bank's come with the source and need none."""
        return nullcontext()

    def prepare(self, batches: Sequence[Batch]) -> None:
        """Does what comes before the first gradient: with sharded blocks every rank must run as many forwards."""
        if ranks.is_sharded(self.settings):
            first = batches[0]
            match_passes(len(batches), lambda: (0 * self.compute_training_errors(first).sum()).backward(), self.device)

    def draw_batches(self, all_ranks: bool = False) -> list[Batch]:
        """Draws this rank's share of the iteration's samples, cut into micro-batches."""
        counts = {task: dataset.train_count for task, dataset in self.datasets.items()}
        buckets = self.datasets[self.stage.task].buckets
        samples = sample_indices(self.seed, self.seed_number, self.iteration, self.stage, counts, buckets)
        share = samples if all_ranks else samples[ranks.rank() :: ranks.world_size()]
        noisiest_share = self.timestep_schedule.compute_open_share(self.iteration / self.stage.iterations)
        settings = BatchSettings(self.empty_prompt, self.settings.text_drop, self.settings.time_shift, noisiest_share)
        parts = split_into_micro_batches(share, self.datasets, self.settings.micro or self.stage.batch)
        return [make_batch(self.datasets[part[0].task], part, settings) for part in parts]

    def _clip_gradients(self) -> float:
        norm = self.weights.clip()
        if not math.isfinite(norm):
            ids = sum((batch.ids for batch in self.draw_batches(all_ranks=True)), ())
            raise NonFiniteLoss(self.stage.name, self.iteration, ids)
        return norm

    def _skip(self, error: Exception) -> None:
        """Gives up an iteration that did not fit into memory."""
        self.weights.gradients.clear()
        self.skipped += 1
        self.skipped_in_a_row += 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        # other ranks wait for this one in the middle of the iteration: they cannot skip it
        if self.skipped_in_a_row >= MAX_SKIPPED or ranks.world_size() > 1:
            raise OutOfMemory(self.skipped_in_a_row, self.settings.micro) from error

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Gives what a checkpoint holds: tensors, and what JSON can hold."""
        tensors, optimizer = self.weights.state()
        state = {"iteration": self.iteration, "missed": self.skipped, "optimizer": optimizer, "seed": self.seed}
        paced = {"pacing": self.timestep_schedule.state()} if self.timestep_schedule.phases > 1 else {}
        open_end = {"length": self.length.state()} if self.length.is_auto else {}
        return tensors, {**state, **paced, **open_end}

    def load(self, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self.weights.load(tensors, state["optimizer"])
        self.iteration, self.skipped, self.seed = (int(state[key]) for key in ("iteration", "missed", "seed"))
        check_range("iteration", self.iteration, 0, self.length.limit)
        if self.timestep_schedule.phases > 1:
            self.timestep_schedule.load(state["pacing"])
        if self.length.is_auto:
            self.length.load(state["length"])
