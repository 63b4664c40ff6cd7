"""The optimizers that a recipe can name, and their state as tensors and numbers for a checkpoint."""

from collections.abc import Mapping
from contextlib import redirect_stdout

import torch
from torch import Tensor

from .recipes.curriculum import Settings


def adamw(groups: list[dict], settings: Settings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)


def prodigy(groups: list[dict], settings: Settings) -> torch.optim.Optimizer:
    """Finds its own rate: the recipe's `rate` is a factor on it, usually 1."""
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


MAKE = {"adamw": adamw, "prodigy": prodigy}


def make_optimizer(groups: list[dict], settings: Settings) -> torch.optim.Optimizer:
    return MAKE[settings.optimizer](groups, settings)


def tensors_of(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict]:
    """Its state, tensors apart from what JSON can hold; numbers keep every bit there."""
    state = optimizer.state_dict()
    tensors, rest = {}, {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                rest[f"{index}.{name}"] = value
    return tensors, {"values": rest, "groups": state["param_groups"]}


def load_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rest: dict) -> None:
    state: dict[int, dict] = {}
    for key, value in [*tensors.items(), *rest["values"].items()]:
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": rest["groups"]})
