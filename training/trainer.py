"""The training loop: what an iteration does, and the loss that it minimises.

    x_t = (1 - t) x_0 + t e                          add_noise
    v = FLUX(x_t, source)                            run_source (eq. 2 to 7), predict_velocity
    L_task = |v - (e - x_0)|^2                       task_loss
    L_veteran = alpha |U_t - rho|                    eq. 8 and 9: compute_usage, veteran_loss
    L_total = L_task + L_veteran                     eq. 10

Everything random follows from the seed and the iteration: neither a resume nor the number of ranks changes a result.
run.py calls train_iteration; coredi/trainer.py and subject/trainer.py have other losses.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..prw.bank.bank import Bank
from ..prw.coredi.features import Features
from ..prw.files.validate import check_range
from ..prw.flux.inputs import FluxInputs
from ..prw.router import Route
from ..prw.select_experts import BlockNoise
from ..prw.source import Routing
from .add_expert import list_trained
from .batch import Batch, BatchSettings, NoisedBatch, make_batch
from .batch_usage import BatchUsage
from .check_processes import check_batch_size
from .data.batch_sampler import sample_indices
from .distributed import ranks
from .distributed.fsdp import match_passes
from .errors import MAX_SKIPPED, NonFiniteLoss, OutOfMemory
from .forward import RouterNoise, predict_velocity, run_source
from .micro_batches import split_into_micro_batches
from .objective import add_noise, task_loss, veteran_loss
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
        self.datasets, self.empty_prompt, self.seed = context.datasets, context.empty_prompt, context.seed
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
        """Draw the batch, take its gradient, clip it, update the weights; None if the batch did not fit into memory."""
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
        """Leave the gradients of all micro-batches and all ranks, added up."""
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
        """The loss of a micro-batch, as its part of the whole batch's; adds to `task_sum`."""

    @abstractmethod
    def compute_training_errors(self, batch: Batch) -> Tensor:
        """The velocity's error of every sample, with gradients to what is trained."""

    @abstractmethod
    def summarize(self, norm: float) -> IterationResult:
        """Add up what all ranks have measured; `norm` is the gradient's length."""

    @abstractmethod
    def measure_errors(self, batch: Batch) -> tuple[Tensor, dict[str, Route]]:
        """The velocity's error of every sample and its routes, with the weights that would be left now, for validation."""

    def attach_weights(self) -> AbstractContextManager[None]:
        """A context in which FLUX computes with the trained weights; a bank's come with the source and need none."""
        return nullcontext()

    def prepare(self, batches: Sequence[Batch]) -> None:
        """Do what comes before the first gradient: with sharded blocks every rank must run as many forwards."""
        if ranks.is_sharded(self.settings):
            first = batches[0]
            match_passes(len(batches), lambda: (0 * self.compute_training_errors(first).sum()).backward(), self.device)

    def draw_batches(self, all_ranks: bool = False) -> list[Batch]:
        """Draw this rank's share of the iteration's samples, cut into micro-batches."""
        counts = {task: dataset.train_count for task, dataset in self.datasets.items()}
        buckets = self.datasets[self.stage.task].buckets
        samples = sample_indices(self.seed, self.stage_number, self.iteration, self.stage, counts, buckets)
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
        """Give up an iteration that did not fit into memory."""
        self.weights.gradients.clear()
        self.skipped += 1
        self.skipped_in_a_row += 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        # other ranks wait for this one in the middle of the iteration: they cannot skip it
        if self.skipped_in_a_row >= MAX_SKIPPED or ranks.world_size() > 1:
            raise OutOfMemory(self.skipped_in_a_row, self.settings.micro) from error

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a checkpoint holds: tensors, and what JSON can hold."""
        tensors, optimizer = self.weights.state()
        state = {"iteration": self.iteration, "missed": self.skipped, "optimizer": optimizer, "seed": self.seed}
        paced = {"pacing": self.timestep_schedule.state()} if self.timestep_schedule.phases > 1 else {}
        open_end = {"length": self.length.state()} if self.length.is_auto else {}
        return tensors, {**state, **paced, **open_end}

    def load(self, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.weights.load(tensors, state["optimizer"])
        self.iteration, self.skipped, self.seed = (int(state[key]) for key in ("iteration", "missed", "seed"))
        check_range("iteration", self.iteration, 0, self.length.limit)
        if self.timestep_schedule.phases > 1:
            self.timestep_schedule.load(state["pacing"])
        if self.length.is_auto:
            self.length.load(state["length"])


class StageTrainer(Trainer):
    """Trains a stage's expert and router in a bank that has them already (add_expert.py); what is older stays as it is."""

    def __init__(self, context: StageContext, bank: Bank, more: Sequence[ParamGroup] = ()):
        """`more` is trained as well, but is no part of the bank."""
        stage, settings = context.stage, context.settings
        own = {name: bank.tensors[name] for name in list_trained(bank, stage)}
        routers = {name: tensor for name, tensor in own.items() if name.startswith("routers.")}
        experts = {name: tensor for name, tensor in own.items() if name not in routers}
        groups = [ParamGroup(experts, settings.rate, decays=True), ParamGroup(routers, settings.router_rate), *more]
        super().__init__(context, groups)
        self.expert_names = bank.info.routers[stage.name].experts
        self.newest = len(self.expert_names) - 1
        older = {name: tensor for name, tensor in bank.tensors.items() if name not in own}
        self.bank, self.exported_bank = (
            Bank(bank.info, {**older, **{name: tensors[name] for name in own}})
            for tensors in (self.trained, self.weights.exported)
        )

    def compute_loss(self, batch: Batch) -> Tensor:
        """Eq. 10 of a micro-batch: L_total = L_task + L_veteran, and what a subclass lowers beside it."""
        noised = self.noise_and_run_source(batch, self.bank, self.make_router_noise(batch))
        velocity, extra_loss = self.predict(batch, noised)
        task = task_loss(velocity, noised.target, noised.noise).sum() / self.stage.batch
        used = self.usage.measure(batch, noised.source.routes)  # its part of U_t, eq. 8
        veteran = veteran_loss(used, self.stage.rho, self.stage.veteran, self.usage.total(used))  # eq. 9
        self.task_sum = self.task_sum + task.detach()
        return task + veteran + extra_loss

    def noise_and_run_source(self, batch: Batch, bank: Bank, router_noise: BlockNoise | None = None) -> NoisedBatch:
        """Noise the target on its device, and run the source through FLUX."""
        target = self.host.scale_latent(batch.target.to(self.device)).float()
        parts = (batch.times, batch.noise, batch.context, batch.pooled, batch.source)
        times, noise, context, pooled, source = (part.to(self.device) for part in parts)
        guidance = torch.full_like(times, self.settings.guidance)
        inputs = FluxInputs(add_noise(target, noise, times), times, context, pooled, guidance)
        routing, options = self.make_routing(batch.task), self.checkpointing_options
        source_context = run_source(self.host, bank, routing, source, inputs, router_noise, options)
        return NoisedBatch(target, noise, inputs, source_context)

    def predict(self, batch: Batch, noised: NoisedBatch) -> tuple[Tensor, Tensor | float]:
        """FLUX's velocity, and a loss beside eq. 10."""
        return predict_velocity(self.host, noised.source, noised.inputs), 0.0

    def prepare(self, batches: Sequence[Batch]) -> None:
        self.usage = BatchUsage(batches, self.stage.task, len(self.expert_names), self.device)
        if self.usage.is_cut and self.stage.veteran:
            self.usage.count_ahead(batches, self._find_routes, ranks.is_sharded(self.settings))
        super().prepare(batches)

    def _find_routes(self, batch: Batch) -> dict[str, Route]:
        return self.noise_and_run_source(batch, self.bank, self.make_router_noise(batch)).source.routes

    def compute_training_errors(self, batch: Batch) -> Tensor:
        return self.measure_errors(batch, self.make_router_noise(batch))[0]

    def measure_errors(self, batch: Batch, router_noise: BlockNoise | None = None) -> tuple[Tensor, dict[str, Route]]:
        """The velocity's error of every sample, and its routes; without noise, of the bank that would be left now."""
        bank = self.exported_bank if router_noise is None else self.bank
        noised = self.noise_and_run_source(batch, bank, router_noise)
        velocity = predict_velocity(self.host, noised.source, noised.inputs)
        return task_loss(velocity, noised.target, noised.noise), noised.source.routes

    def summarize(self, norm: float) -> IterationResult:
        sums = torch.cat((self.task_sum[None], self.usage.used[None], self.usage.shares))
        task, used, *shares = ranks.sum_over_ranks(sums, self.device).tolist()
        total = torch.tensor(used, dtype=torch.float64)
        veteran = float(veteran_loss(total, self.stage.rho, self.stage.veteran)) if sum(shares) else 0.0
        return IterationResult(self.iteration, task, veteran, used, tuple(shares), norm)

    def make_routing(self, task: str) -> Routing:
        """The stage's own router, for replayed tasks as well: it shall not forget them."""
        return Routing(task=task, router=self.stage.name)

    def make_router_noise(self, batch: Batch) -> BlockNoise:
        """Noise that fades to nothing over the end of the stage, where the recipe says so."""
        return RouterNoise(batch.seeds, self.length.compute_noise_scale(self.iteration))

    def export_features(self) -> Features | None:
        """What the stage leaves beside its bank, if anything."""

    def export_bank(self) -> Bank:
        """The bank as it would be left now."""
        experts = dict(self.bank.info.experts)
        experts[self.stage.name] = replace(experts[self.stage.name], iterations=self.iteration)
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.exported_bank.tensors.items()}
        return Bank(replace(self.bank.info, experts=experts), tensors)
