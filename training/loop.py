"""The one loop that trains every stage: they differ in data, not in code.

An iteration: draw the batch, weave, take the velocity's error (objective.py), hold the newest expert's usage at rho,
step. Everything random follows from the seed and the iteration, so that neither a resume nor the number of ranks
changes a result.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..prw.attachment import Host
from ..prw.bank import Bank
from ..prw.router import Route
from ..prw.source import Routing
from . import ranks
from .checkpoints import TrainingError
from .curriculum import Settings, Stage
from .forward import SlotNoise, device_of, velocity, weave
from .growing import own_tensors
from .lessons import Batch, Shelf, Slot, batch_of, slots
from .mishaps import MOST_MISSES, NotFinite, OutOfMemory
from .objective import noised, side, task_loss, usage, usage_of_all, veteran_loss
from .optimizers import load_tensors, make_optimizer, tensors_of
from .schedule import factor


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


class StageTrainer:
    """One expert's turn. `bank` holds it already (growing.py); everything else in it stays as it is."""

    def __init__(
        self,
        host: Host,
        bank: Bank,
        stage: Stage,
        number: int,
        settings: Settings,
        lessons: Mapping[str, Shelf],
        empty: tuple[Tensor, Tensor],
        seed: int = 0,
        spare: dict | None = None,
    ):
        self.host, self.stage, self.number, self.settings = host, stage, number, settings
        self.lessons, self.empty, self.seed = lessons, empty, seed
        self.spare = spare if settings.checkpointing else None
        self.device = device_of(host)
        self.newest = len(bank.info.routers[stage.name].experts) - 1
        names = own_tensors(bank, stage)
        own = {name: bank.tensors[name].detach().float().to(self.device).clone() for name in names}
        ranks.spread(own.values())
        self.trained = {name: tensor.requires_grad_(True) for name, tensor in own.items()}
        self.average = {name: tensor.detach().clone() for name, tensor in own.items()} if settings.ema else {}
        older = {name: tensor for name, tensor in bank.tensors.items() if name not in own}
        self.bank = Bank(bank.info, {**older, **self.trained})
        self.left = Bank(bank.info, {**older, **(self.average or self.trained)})
        experts = [tensor for name, tensor in self.trained.items() if name.startswith("experts.")]
        routers = [tensor for name, tensor in self.trained.items() if name.startswith("routers.")]
        self.optimizer = make_optimizer(experts, routers, settings)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.iteration = 0
        self.missed, self.misses_in_a_row = 0, 0
        if stage.batch % ranks.count():
            raise TrainingError(
                f"The batch of {stage.name} is {stage.batch}, which {ranks.count()} processes cannot share equally: "
                f"set a multiple."
            )

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
        self.iteration += 1
        return step

    def _missed(self, error: Exception) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.missed += 1
        self.misses_in_a_row += 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        # other ranks wait for this one in the middle of the iteration: they cannot skip it
        if self.misses_in_a_row >= MOST_MISSES or ranks.count() > 1:
            raise OutOfMemory(self.misses_in_a_row, self.settings.micro) from error

    def _gradients(self) -> Tensor:
        """Leaves this rank's gradients; gives its parts of the task loss, of U_t and of every expert's usage."""
        batches = self.batches()
        own = sum(len(batch.ids) for batch in batches if self._counts(batch))
        total, cut = ranks.total([own, len(batches) > 1], self.device)
        known = self._usage_ahead(batches, total) if cut else None
        task, used, shares = (torch.zeros(size, device=self.device) for size in ((), (), self.newest + 1))
        for batch in batches:
            errors, routes = self.errors(batch, self.noise(batch))
            loss, part = errors.sum() / self.stage.batch, torch.zeros_like(used)
            task = task + loss.detach()
            if self._counts(batch):
                part = usage(routes.values(), self.newest) * (len(batch.ids) / total)
                shares = shares + usage_of_all(routes.values(), self.newest + 1) * (len(batch.ids) / total)
            reached = ranks.total(part, self.device) if known is None else known
            used = used + part.detach()
            loss = loss + self.stage.veteran * side(reached - self.stage.rho) * part
            if not torch.isfinite(loss):
                raise NotFinite(self.stage.name, self.iteration, batch.ids)
            loss.backward()
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
            for batch in filter(self._counts, batches):
                routes = self.routes(batch, self.noise(batch))
                used = used + usage(routes.values(), self.newest) * (len(batch.ids) / total)
        return ranks.total(used, self.device)

    def _told(self, sums: Tensor, norm: float) -> Step:
        task, used, *shares = ranks.total(sums, self.device).tolist()
        veteran = veteran_loss(used, self.stage.rho, self.stage.veteran) if sum(shares) else 0.0
        return Step(self.iteration, task, veteran, used, tuple(shares), norm)

    def batches(self) -> list[Batch]:
        """This rank's share of the iteration, in pieces of one task, one bucket and at most `micro` samples."""
        taught = {task: lessons.taught for task, lessons in self.lessons.items()}
        buckets = self.lessons[self.stage.task].buckets
        all_ranks = slots(self.seed, self.number, self.iteration, self.stage, taught, buckets)
        alike: dict[tuple[str, int], list[Slot]] = {}
        for slot in all_ranks[ranks.rank() :: ranks.count()]:
            alike.setdefault((slot.task, self.lessons[slot.task].bucket(slot.index)), []).append(slot)
        size = self.settings.micro or self.stage.batch
        pieces = [some[i : i + size] for some in alike.values() for i in range(0, len(some), size)]
        knobs = (self.empty, self.settings.text_drop, self.settings.time_shift)
        return [batch_of(self.lessons[piece[0].task], piece, *knobs) for piece in pieces]

    def routing(self, task: str) -> Routing:
        """The stage's own router, also for replayed tasks: it shall not forget them."""
        return Routing(task=task, router=self.stage.name)

    def noise(self, batch: Batch) -> SlotNoise:
        """Fades to nothing over the end of the stage, where the recipe says so."""
        share = self.iteration / self.stage.iterations
        fading = 1.0 if share <= self.settings.noise_end else (1 - share) / (1 - self.settings.noise_end)
        return SlotNoise(batch.seeds, fading)

    def errors(self, batch: Batch, noise=None) -> tuple[Tensor, dict[str, Route]]:
        """The velocity's error of every sample, and its routes; without noise, of the bank that would be left now."""
        target = self.host.latent_in(batch.target.to(self.device)).float()
        times, eps, context, pooled = (
            part.to(self.device) for part in (batch.times, batch.noise, batch.context, batch.pooled)
        )
        x = noised(target, eps, times)
        bank, source = self.left if noise is None else self.bank, batch.source.to(self.device)
        woven = weave(self.host, bank, self.routing(batch.task), source, x, times, pooled, noise, self.spare)
        found = velocity(self.host, woven, x, times, context, pooled, self.settings.guidance)
        return task_loss(found, target, eps), woven.routes

    def routes(self, batch: Batch, noise=None) -> dict[str, Route]:
        """Routes alone: the source's pass, without FLUX's."""
        x = self.host.latent_in(batch.target.to(self.device)).float()
        times, pooled = batch.times.to(self.device), batch.pooled.to(self.device)
        source = batch.source.to(self.device)
        return weave(self.host, self.bank, self.routing(batch.task), source, x, times, pooled, noise).routes

    def _update(self) -> float:
        parameters = list(self.trained.values())
        for parameter in parameters:  # an expert that no sample took has no gradient
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        ranks.add_up([parameter.grad for parameter in parameters])
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip or torch.inf).item()
        if not math.isfinite(norm):
            raise NotFinite(self.stage.name, self.iteration, sum((batch.ids for batch in self.batches()), ()))
        scale = factor(self.settings.schedule, self.iteration, self.stage.iterations, self.settings.warmup)
        for group, rate in zip(self.optimizer.param_groups, self.rates):
            group["lr"] = rate * scale
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self._follow()
        return norm

    @torch.no_grad()
    def _follow(self) -> None:
        # young averages forget faster, or they would remember the start for long
        decay = min(self.settings.ema, (1 + self.iteration) / (10 + self.iteration))
        for name, tensor in self.trained.items():
            self.average[name].lerp_(tensor, 1 - decay)

    def result(self) -> Bank:
        """The bank as it would be left now."""
        experts = dict(self.bank.info.experts)
        experts[self.stage.name] = replace(experts[self.stage.name], iterations=self.iteration)
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.left.tensors.items()}
        return Bank(replace(self.bank.info, experts=experts), tensors)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        tensors, rest = tensors_of(self.optimizer)
        named = {"optimizer": tensors, "trained": self.trained, "average": self.average}
        flat = {f"{kind}/{name}": tensor for kind, group in named.items() for name, tensor in group.items()}
        return flat, {"iteration": self.iteration, "missed": self.missed, "optimizer": rest, "seed": self.seed}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], state: dict) -> None:
        for kind, group in (("trained", self.trained), ("average", self.average)):
            for name, tensor in group.items():
                tensor.copy_(tensors[f"{kind}/{name}"])
        optimizer = {name.split("/", 1)[1]: t for name, t in tensors.items() if name.startswith("optimizer/")}
        load_tensors(self.optimizer, optimizer, state["optimizer"])
        self.iteration, self.missed, self.seed = state["iteration"], state["missed"], state["seed"]
