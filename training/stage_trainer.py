"""Training a stage's expert and router: the loss that an iteration (trainer.py) minimises.

x_t = (1 - t) x_0 + t e                          add_noise
v = FLUX(x_t, source)                            run_source (eq. 2 to 7), predict_velocity
L_task = |v - (e - x_0)|^2                       task_loss
L_veteran = alpha |U_t - rho|                    eq. 8 and 9: compute_usage, veteran_loss
L_total = L_task + L_veteran                     eq. 10
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..prw.bank.bank import Bank
from ..prw.coredi.features import Features
from ..prw.flux.inputs import FluxInputs
from ..prw.router import Route
from ..prw.select_experts import BlockNoise
from ..prw.source import Routing
from .add_expert import list_trained
from .batch import Batch, NoisedBatch
from .batch_usage import BatchUsage
from .distributed import ranks
from .forward import RouterNoise, predict_velocity, run_source
from .objective import add_noise, task_loss, veteran_loss
from .optimizers import ParamGroup
from .stage_context import IterationResult, StageContext
from .trainer import Trainer


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
        if stage.columns == "newest":
            for name in routers:
                self.trained[name].register_hook(keep_newest_column)
        older = {name: tensor for name, tensor in bank.tensors.items() if name not in own}
        self.bank, self.exported_bank = (
            Bank(bank.info, {**older, **{name: tensors[name] for name in own}})
            for tensors in (self.trained, self.weights.exported)
        )

    def compute_loss(self, batch: Batch) -> Tensor:
        """Computes eq. 10 of a micro-batch: L_total = L_task + L_veteran, and what a subclass lowers beside it."""
        noised = self.noise_and_run_source(batch, self.bank, self.make_router_noise(batch))
        velocity, extra_loss = self.predict(batch, noised)
        task = task_loss(velocity, noised.target, noised.noise).sum() / self.stage.batch
        used = self.usage.measure(batch, noised.source.routes)  # its part of U_t, eq. 8
        veteran = veteran_loss(used, self.stage.rho, self.stage.veteran, self.usage.total(used))  # eq. 9
        self.task_sum = self.task_sum + task.detach()
        return task + veteran + extra_loss

    def noise_and_run_source(self, batch: Batch, bank: Bank, router_noise: BlockNoise | None = None) -> NoisedBatch:
        """Noises the target on its device, and runs the source through FLUX."""
        target = self.host.scale_latent(batch.target.to(self.device)).float()
        parts = (batch.times, batch.noise, batch.context, batch.pooled, batch.source)
        times, noise, context, pooled, source = (part.to(self.device) for part in parts)
        guidance = torch.full_like(times, self.settings.guidance)
        inputs = FluxInputs(add_noise(target, noise, times), times, context, pooled, guidance)
        routing, options = self.make_routing(batch.task), self.checkpointing_options
        source_context = run_source(self.host, bank, routing, source, inputs, router_noise, options)
        return NoisedBatch(target, noise, inputs, source_context)

    def predict(self, batch: Batch, noised: NoisedBatch) -> tuple[Tensor, Tensor | float]:
        """Predicts FLUX's velocity, and a loss beside eq. 10."""
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
        """Measures the velocity's error of every sample, and its routes; without noise,
        of the bank that would be left now."""
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
        """Makes the stage's own router, for replayed tasks as well: it shall not forget them."""
        return Routing(task=task, router=self.stage.name)

    def make_router_noise(self, batch: Batch) -> BlockNoise:
        """Makes noise that fades to nothing over the end of the stage, where the recipe says so."""
        return RouterNoise(batch.seeds, self.length.compute_noise_scale(self.iteration))

    def export_features(self) -> Features | None:
        """Gives what the stage leaves beside its bank, if anything."""

    def export_bank(self) -> Bank:
        """Gives the bank as it would be left now."""
        experts = dict(self.bank.info.experts)
        experts[self.stage.name] = replace(experts[self.stage.name], iterations=self.iteration)
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.exported_bank.tensors.items()}
        return Bank(replace(self.bank.info, experts=experts), tensors)


def keep_newest_column(gradient: Tensor) -> Tensor:
    """Keeps the gradient of a router's matrix (width, experts) with 0 for what older experts have there."""
    newest = torch.zeros_like(gradient)
    newest[:, -1] = gradient[:, -1]
    return newest
