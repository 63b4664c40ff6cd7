"""What training minimises: the flow-matching loss and the veteran loss (paper, eq. 8 to 10). Pure functions.

U_t       = mean over blocks of 1[e_i = newest expert]       eq. 8
L_veteran = alpha * |U_t - rho|                              eq. 9
L_total   = L_task + L_veteran                               eq. 10
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..prw.router import Route

ROUNDING = 1e-6
"""Usages closer than this are equal."""


def draw_times(
    count: int, generator: torch.Generator | None = None, device="cpu", shift: float = 1.0, noisiest_share: float = 1.0
) -> Tensor:
    """Draws timesteps (count,) in 0..1, densest in the middle: the sigmoid of a normal (our choice, as FLUX's
    relatives).

    A shift above 1 moves them towards noise, where it is decided what goes where: s t / (1 + (s - 1) t). Only the
    `noisiest_share` of that distribution is drawn from (timestep_schedule.py).
    """
    normal = torch.randn(count, generator=generator, device=device)
    if noisiest_share < 1:
        normal = -torch.special.ndtri(noisiest_share * torch.special.ndtr(-normal.double())).float()
    times = normal.sigmoid()
    return times if shift == 1 else shift * times / (1 + (shift - 1) * times)


def add_noise(picture: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Computes x_t = (1 - t) x_0 + t e: the straight path from the picture to noise."""
    t = times.view(-1, *[1] * (picture.ndim - 1)).to(picture)
    return (1 - t) * picture + t * noise


def task_loss(velocity: Tensor, picture: Tensor, noise: Tensor) -> Tensor:
    """Computes L_task: the mean squared error, in fp32, against the path's velocity e - x_0,
    of every sample (batch,)."""
    return F.mse_loss(velocity.float(), noise.float() - picture.float(), reduction="none").flatten(1).mean(1)


def compute_usage(routes: Iterable[Route], newest: int) -> Tensor:
    """Computes U_t of eq. 8: the newest expert's share of the blocks, averaged over the batch (and tokens) before the
    absolute value of eq. 9 (our choice), so that samples may route differently.

    The indicator has no gradient, so it is straight-through: its value counts what was chosen, its
    gradient is that of the softmax (our choice; a soft count settles away from rho).
    """
    shares = []
    for route in routes:
        p = route.probs[..., newest]
        chosen = (route.expert == newest).to(p)
        shares.append((chosen + p - p.detach()).mean())
    return torch.stack(shares).mean()


def veteran_loss(usage: Tensor, rho: float, alpha: float, batch_usage: Tensor | None = None) -> Tensor:
    """Computes L_veteran of eq. 9, alpha |U_t - rho|, which holds U_t at rho; its gradient flows through `usage`.

    Where `usage` is a micro-batch's part of U_t, `batch_usage` is the whole: the value is that of the whole batch, the
    gradient the part's, alpha sign(U_t - rho); gradients of all parts add up to that of eq. 9.
    """
    gap = (usage if batch_usage is None else batch_usage).detach() - rho
    slope = alpha * sign_of_gap(gap) * usage
    return alpha * gap.abs() + (slope - slope.detach())


def sign_of_gap(gap: Tensor) -> Tensor:
    """Gives the gradient of |gap|: -1 or 1, and 0 where the gap is no more than rounding.

    Otherwise the way a batch is cut would decide where a usage that has reached rho is pushed.
    """
    return torch.where(gap.abs() < ROUNDING, torch.zeros_like(gap), gap.sign())


def count_usage(routes: Iterable[Route], experts: int) -> Tensor:
    """Computes each expert's share of the choices (experts,), for logs; they sum to 1."""
    shares = [F.one_hot(route.expert, experts).float().flatten(0, -2).mean(0) for route in routes]
    return torch.stack(shares).mean(0) if shares else torch.zeros(experts)
