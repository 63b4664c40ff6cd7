"""The one loop that trains every stage: they differ in data, not in code.

An iteration: draw the batch, weave, take the velocity's error (objective.py), hold the newest expert's usage at rho,
step. What is not about experts is in trainer.py.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..prw.bank.bank import Bank
from ..prw.coredi.features import Features
from ..prw.flux.inputs import FluxInputs
from ..prw.router import Route
from ..prw.source import Routing
from .add_expert import own_tensors
from .batch import Batch
from .distributed import ranks
from .forward import RouterNoise, SourceContext, predict_velocity, weave
from .objective import noised, side, task_loss, usage, usage_of_all, veteran_loss
from .trainer import Group, Step, Trainer, Work


class Given(NamedTuple):
    """What a forward needs, and what its answer is compared with."""

    target: Tensor
    eps: Tensor
    x: Tensor
    times: Tensor
    context: Tensor
    pooled: Tensor
    woven: SourceContext


class StageTrainer(Trainer):
    """One expert's turn. `bank` holds it already (growing.py); everything else in it stays as it is."""

    def __init__(self, work: Work, bank: Bank, more: Sequence[Group] = ()):
        """`more` is trained along, but no part of the bank."""
        stage, settings = work.stage, work.settings
        own = {name: bank.tensors[name] for name in own_tensors(bank, stage)}
        experts, routers = (
            {name: tensor for name, tensor in own.items() if name.startswith("routers.") == routes}
            for routes in (False, True)
        )
        groups = [Group(experts, settings.rate, decays=True), Group(routers, settings.router_rate), *more]
        super().__init__(work, groups)
        self.columns = bank.info.routers[stage.name].experts
        self.newest = len(self.columns) - 1
        older = {name: tensor for name, tensor in bank.tensors.items() if name not in own}
        self.bank, self.left = (
            Bank(bank.info, {**older, **{name: tensors[name] for name in own}})
            for tensors in (self.trained, self.average or self.trained)
        )

    def _gradients(self) -> Tensor:
        """Leaves all ranks' gradients, added up; gives this one's parts of the task loss, of U_t and of every expert's usage."""
        batches = self.batches()
        own = sum(len(batch.ids) for batch in batches if self._counts(batch))
        total, cut = ranks.total([own, len(batches) > 1], self.device)
        known = self._usage_ahead(batches, total) if cut else None
        for _ in self.in_step(len(batches)):
            (0 * self.errors(batches[0], self.noise(batches[0]))[0].sum()).backward()
        task, used, shares = (torch.zeros(size, device=self.device) for size in ((), (), self.newest + 1))
        for batch in batches:
            errors, routes, beside = self.taught(batch, self.noise(batch))
            loss, part = errors.sum() / self.stage.batch, torch.zeros_like(used)
            task = task + loss.detach()
            if self._counts(batch):
                part = usage(routes.values(), self.newest) * (len(batch.ids) / total)
                shares = shares + usage_of_all(routes.values(), self.newest + 1) * (len(batch.ids) / total)
            reached = ranks.total(part, self.device) if known is None else known
            used = used + part.detach()
            loss = loss + self.stage.veteran * side(reached - self.stage.rho) * part + beside
            self._refuse_infinite(loss, batch)
            self.sums.backward(loss, last=batch is batches[-1])
        return torch.cat((task[None], used[None], shares))

    def _counts(self, batch: Batch) -> bool:
        """The veteran loss leaves replayed tasks out."""
        return batch.task == self.stage.task

    def _usage_ahead(self, batches: Sequence[Batch], total: Tensor) -> Tensor:
        """U_t of the whole batch: where a rank has several pieces, it must be known before the first gradient."""
        used = torch.zeros_like(total)
        if self.stage.veteran == 0:
            return used
        with torch.no_grad():
            counted = list(filter(self._counts, batches))
            for _ in self.in_step(len(counted)):
                self.routes(batches[0], self.noise(batches[0]))
            for batch in counted:
                routes = self.routes(batch, self.noise(batch))
                used = used + usage(routes.values(), self.newest) * (len(batch.ids) / total)
        return ranks.total(used, self.device)

    def _told(self, sums: Tensor, norm: float) -> Step:
        task, used, *shares = ranks.total(sums, self.device).tolist()
        veteran = veteran_loss(used, self.stage.rho, self.stage.veteran) if sum(shares) else 0.0
        return Step(self.iteration, task, veteran, used, tuple(shares), norm)

    def routing(self, task: str) -> Routing:
        """The stage's own router, also for replayed tasks: it shall not forget them."""
        return Routing(task=task, router=self.stage.name)

    def noise(self, batch: Batch) -> RouterNoise:
        """Fades to nothing over the end of the stage, where the recipe says so."""
        share = self.iteration / self.stage.iterations
        fading = 1.0 if share <= self.settings.noise_end else (1 - share) / (1 - self.settings.noise_end)
        return RouterNoise(batch.seeds, fading)

    def errors(self, batch: Batch, noise=None) -> tuple[Tensor, dict[str, Route]]:
        """The velocity's error of every sample, and its routes; without noise, of the bank that would be left now."""
        given = self.given(batch, noise)
        return self.error(self.found(given), given), given.woven.routes

    def taught(self, batch: Batch, noise) -> tuple[Tensor, dict[str, Route], Tensor | float]:
        """The same of a batch to learn from, and what else it is to lower."""
        return *self.errors(batch, noise), 0.0

    def given(self, batch: Batch, noise=None) -> Given:
        """A batch where it computes, its source woven."""
        target = self.host.latent_in(batch.target.to(self.device)).float()
        times, eps, context, pooled = (
            part.to(self.device) for part in (batch.times, batch.noise, batch.context, batch.pooled)
        )
        x = noised(target, eps, times)
        bank, source = self.left if noise is None else self.bank, batch.source.to(self.device)
        woven = weave(
            self.host, bank, self.routing(batch.task), source, FluxInputs(x, times, context, pooled), noise, self.spare
        )
        return Given(target, eps, x, times, context, pooled, woven)

    def found(self, given: Given, patches: Sequence = ()) -> Tensor:
        """FLUX's velocity; `patches` come behind the one that appends the source."""
        _, _, x, times, context, pooled, woven = given
        guidance = torch.full_like(times, self.settings.guidance)
        return predict_velocity(self.host, woven.with_patches(patches), FluxInputs(x, times, context, pooled, guidance))

    def error(self, found: Tensor, given: Given) -> Tensor:
        return task_loss(found, given.target, given.eps)

    def routes(self, batch: Batch, noise=None) -> dict[str, Route]:
        """Routes alone: the source's pass, without FLUX's."""
        x = self.host.latent_in(batch.target.to(self.device)).float()
        times, pooled = batch.times.to(self.device), batch.pooled.to(self.device)
        source = batch.source.to(self.device)
        inputs = FluxInputs(x, times, batch.context, pooled)
        return weave(self.host, self.bank, self.routing(batch.task), source, inputs, noise).routes

    def besides(self) -> Features | None:
        """What it leaves that is no part of the bank."""
        return None

    def result(self) -> Bank:
        """The bank as it would be left now."""
        experts = dict(self.bank.info.experts)
        experts[self.stage.name] = replace(experts[self.stage.name], iterations=self.iteration)
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.left.tensors.items()}
        return Bank(replace(self.bank.info, experts=experts), tensors)
