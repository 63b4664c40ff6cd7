"""Small random models, for demonstrations, benchmarks and tests: the shapes of FLUX without its knowledge."""

from typing import Any

import torch

from ...prw.base_model import Base
from ...prw.config import BankInfo, ExpertInfo, RouterInfo, SourceInfo
from ...prw.flux.flux1 import Flux, FluxParams
from ...prw.tasks import TASKS

TINY: dict[str, Any] = dict(
    hidden_size=256, num_heads=2, depth=2, depth_single_blocks=2, context_in_dim=32, vec_in_dim=16
)
FLUX1 = dict(hidden_size=3072, num_heads=24, depth=19, depth_single_blocks=38)


@torch.no_grad()
def random_flux(seed: int = 0, dtype=torch.float32, device="cpu", gain: float = 1.5, **shape) -> Flux:
    """A FLUX with weights large enough that every part of it matters; heads keep the 128 channels of the real one."""
    with torch.device("meta"):
        flux = Flux(FluxParams(**{**TINY, **shape}))
    flux = flux.to_empty(device=device).to(dtype)
    generator = torch.Generator(device).manual_seed(seed)
    for name, parameter in flux.named_parameters():
        size = gain * parameter.shape[1] ** -0.5 if parameter.ndim == 2 else 0.1
        parameter.copy_(torch.randn(parameter.shape, generator=generator, device=device, dtype=dtype) * size)
        if name.endswith("_norm.scale"):
            parameter.add_(1)
    return flux.eval().requires_grad_(False)


def bank_info(base: Base, names=tuple(TASKS), rank: int = 128, alpha: float | None = None, **source) -> BankInfo:
    """Experts named after tasks, and for each stage the router over what was trained so far."""
    roles = {name: task.role for name, task in TASKS.items()}
    alpha = 2 * rank if alpha is None else alpha
    return BankInfo(
        base=base,
        experts={
            name: ExpertInfo(rank=rank, alpha=float(alpha), task=name, role=roles.get(name, ""), stage=i)
            for i, name in enumerate(names)
        },
        routers={name: RouterInfo(experts=tuple(names[: i + 1]), task=name) for i, name in enumerate(names)},
        source=SourceInfo(**source),
    )
