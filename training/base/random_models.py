"""Small random models, for demonstrations, benchmarks and tests: the shapes of FLUX without its knowledge."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from ...prw.base_model import Base
from ...prw.config import BankInfo, ExpertInfo, RouterInfo, SourceInfo
from ...prw.flux import families
from ...prw.flux.blocks import FluxModel
from ...prw.flux.flux1 import Flux, FluxParams
from ...prw.flux.flux2 import Flux2, Flux2Params
from ...prw.tasks import TASKS

T = TypeVar("T", bound=FluxModel)
TINY: dict[str, Any] = dict(
    hidden_size=256, num_heads=2, depth=2, depth_single_blocks=2, context_in_dim=32, vec_in_dim=16
)
TINY_FLUX2: dict[str, Any] = {name: size for name, size in TINY.items() if name != "vec_in_dim"}


def random_flux(seed: int = 0, dtype=torch.float32, device="cpu", gain: float = 1.5, **shape) -> Flux:
    """Makes a FLUX.1 with weights large enough that every part of it matters;
    heads keep the 128 channels of the real one."""
    with torch.device("meta"):
        flux = Flux(FluxParams(**{**TINY, **shape}))
    return fill_randomly(flux, seed, dtype, device, gain)


def random_flux2(seed: int = 0, dtype=torch.float32, device="cpu", gain: float = 1.5, **shape) -> Flux2:
    """Makes a FLUX.2 like `random_flux`."""
    with torch.device("meta"):
        flux = Flux2(Flux2Params(**{**TINY_FLUX2, **shape}))
    return fill_randomly(flux, seed, dtype, device, gain)


RANDOM_MODELS: Mapping[str, Callable[..., families.Flux]] = {
    families.FLUX1.name: random_flux,
    families.FLUX2.name: random_flux2,
}
"""By family."""


@torch.no_grad()
def fill_randomly(flux: T, seed: int, dtype: torch.dtype, device: str, gain: float) -> T:
    """Gives a model without weights random ones: matrices keep their input's size times `gain`."""
    flux = flux.to_empty(device=device).to(dtype)
    generator = torch.Generator(device).manual_seed(seed)
    for name, parameter in flux.named_parameters():
        size = gain * parameter.shape[1] ** -0.5 if parameter.ndim == 2 else 0.1
        parameter.copy_(torch.randn(parameter.shape, generator=generator, device=device, dtype=dtype) * size)
        if name.endswith("_norm.scale"):
            parameter.add_(1)
    return flux.eval().requires_grad_(False)


def bank_info(
    base: Base, names=tuple(TASKS), rank: int = 128, alpha: float | None = None, per: str = "sample", **source
) -> BankInfo:
    """Makes experts named after tasks, and for each stage the router over what was trained so far;
    `source` is SourceInfo's."""
    roles = {name: task.role for name, task in TASKS.items()}
    alpha = 2 * rank if alpha is None else alpha
    return BankInfo(
        base=base,
        experts={
            name: ExpertInfo(rank=rank, alpha=float(alpha), task=name, role=roles.get(name, ""), stage=i)
            for i, name in enumerate(names)
        },
        routers={name: RouterInfo(experts=tuple(names[: i + 1]), task=name, per=per) for i, name in enumerate(names)},
        source=SourceInfo(**source),
    )
