"""The tensors that a stage trains, with what belongs to them: gradients, optimizer, running average, a state to go on from."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .distributed import ranks
from .distributed.gradient_reducer import GradientReducer
from .optimizers import ParamGroup, load_state, make_optimizer, split_state
from .recipes.curriculum import Settings


class TrainedWeights:
    """Named tensors in fp32, the same on every rank."""

    def __init__(self, groups: Sequence[ParamGroup], settings: Settings, device: torch.device):
        named = {name: tensor for group in groups for name, tensor in group.tensors.items()}
        tensors = {name: tensor.detach().float().to(device).clone() for name, tensor in named.items()}
        ranks.broadcast(tensors.values())
        self.settings = settings
        self.average = {name: tensor.clone() for name, tensor in tensors.items()} if settings.ema else {}
        """The running average; empty where the recipe has none."""
        self.trained = {name: tensor.requires_grad_(True) for name, tensor in tensors.items()}
        self.gradients = GradientReducer(list(self.trained.values()), overlaps=not ranks.is_sharded(settings))
        self.optimizer = make_optimizer(groups, self.trained, settings)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    @property
    def exported(self) -> dict[str, Tensor]:
        """What training would leave now: the average, where there is one."""
        return self.average or self.trained

    def clip(self) -> float:
        """Clips the gradient to the recipe's length; returns the length that it had."""
        return torch.nn.utils.clip_grad_norm_(list(self.trained.values()), self.settings.clip or torch.inf).item()

    def step(self, iteration: int, factor: float) -> None:
        """Updates the weights and their average, by a factor of the recipe's rates, and clears the gradients."""
        for group, rate in zip(self.optimizer.param_groups, self.rates):
            group["lr"] = rate * factor
        self.optimizer.step()
        self.gradients.clear()
        self._update_average(iteration)

    @torch.no_grad()
    def _update_average(self, iteration: int) -> None:
        # young averages forget faster, or they would remember the start for long
        decay = min(self.settings.ema, (1 + iteration) / (10 + iteration))
        for name, average in self.average.items():
            average.lerp_(self.trained[name], 1 - decay)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Gives what a checkpoint holds: tensors, and what JSON can hold."""
        optimizer, rest = split_state(self.optimizer)
        kinds = {"optimizer": optimizer, "trained": self.trained, "average": self.average}
        return {f"{kind}/{name}": tensor for kind, named in kinds.items() for name, tensor in named.items()}, rest

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], rest: dict[str, Any]) -> None:
        for kind, named in (("trained", self.trained), ("average", self.average)):
            for name, tensor in named.items():
                tensor.copy_(tensors[f"{kind}/{name}"])
        optimizer = {name.split("/", 1)[1]: t for name, t in tensors.items() if name.startswith("optimizer/")}
        load_state(self.optimizer, optimizer, rest)
