"""The optimizers that a recipe can name, and their state as tensors and numbers for a checkpoint."""

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .recipes.curriculum import Settings


class ParamGroup(NamedTuple):
    """Tensors that are trained at one rate."""

    tensors: Mapping[str, Tensor]
    rate: float
    decays: bool = False
    """Whether weight decay pulls at them."""


def make_adamw(groups: list[dict[str, Any]], settings: Settings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)


def make_prodigy(groups: list[dict[str, Any]], settings: Settings) -> torch.optim.Optimizer:
    """Prodigy finds its own rate: the recipe's `rate` is a factor on it, usually 1."""
    try:
        from prodigyopt import Prodigy
    except ImportError:
        raise ValueError(
            "The recipe asks for Prodigy, which is not installed: pip install prodigyopt, or set optimizer = adamw."
        ) from None
    # it keeps one step size for all groups, so all must have one rate
    for group in groups:
        group["lr"] = settings.rate
    with redirect_stdout(None):  # it prints how it decays weights
        return Prodigy(groups, weight_decay=settings.weight_decay, safeguard_warmup=True, use_bias_correction=True)


OPTIMIZERS = {"adamw": make_adamw, "prodigy": make_prodigy}


def make_optimizer(
    groups: Sequence[ParamGroup], trained: Mapping[str, Tensor], settings: Settings
) -> torch.optim.Optimizer:
    """Makes the recipe's optimizer; `trained` holds the parameters under the names of the groups' tensors."""
    parameters = [
        {"params": [trained[name] for name in group.tensors], "lr": group.rate}
        | ({} if group.decays else {"weight_decay": 0.0})
        for group in groups
    ]
    return OPTIMIZERS[settings.optimizer](parameters, settings)


def split_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Splits an optimizer's state into tensors and what JSON can hold; numbers keep every bit there."""
    state = optimizer.state_dict()
    tensors, rest = {}, {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                rest[f"{index}.{name}"] = value
    return tensors, {"values": rest, "groups": state["param_groups"]}


def load_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rest: dict[str, Any]) -> None:
    """Loads what split_state gave."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *rest["values"].items()]:
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": rest["groups"]})
