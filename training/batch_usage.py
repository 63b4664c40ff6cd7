"""U_t (eq. 8) of the whole batch where ranks or micro-batches see only a part of it.

The veteran loss pushes by the sign of U_t - rho, so every part needs the whole batch's U_t before its gradient. With one
micro-batch a rank, the ranks add up their parts as they come. With several, U_t is counted before the first gradient.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..prw.router import Route
from .batch import Batch
from .distributed import ranks
from .distributed.fsdp import match_passes
from .objective import compute_usage, count_usage

Routes = Mapping[str, Route]


class BatchUsage:
    """Measures what each micro-batch adds to U_t of an iteration; replayed tasks do not count."""

    def __init__(self, batches: Sequence[Batch], task: str, experts: int, device: torch.device):
        """`batches` are this rank's, `task` is the stage's; of the experts the last is the newest."""
        self.task, self.experts, self.device = task, experts, device
        samples = sum(len(batch.ids) for batch in batches if batch.task == task)
        self.samples, cut_ranks = ranks.sum_over_ranks([samples, len(batches) > 1], device)
        self.is_cut = bool(cut_ranks)
        """Whether any rank has several micro-batches."""
        self.counted = torch.zeros((), device=device) if self.is_cut else None
        self.used, self.shares = torch.zeros((), device=device), torch.zeros(experts, device=device)
        """This rank's parts of U_t and of every expert's usage, so far."""

    def measure(self, batch: Batch, routes: Routes) -> Tensor:
        """Measures what a micro-batch adds to U_t, with its gradient."""
        if batch.task != self.task:
            return torch.zeros_like(self.used)
        share = len(batch.ids) / self.samples
        used = compute_usage(routes.values(), self.experts - 1) * share
        self.used = self.used + used.detach()
        self.shares = self.shares + count_usage(routes.values(), self.experts) * share
        return used

    def total(self, used: Tensor) -> Tensor:
        """Computes U_t of the whole batch, without gradient, from a micro-batch's part;
        every rank asks for it at once."""
        return ranks.sum_over_ranks(used, self.device) if self.counted is None else self.counted

    @torch.no_grad()
    def count_ahead(self, batches: Sequence[Batch], find_routes: Callable[[Batch], Routes], is_sharded: bool) -> None:
        """Counts U_t before the first gradient, by the source's pass alone."""
        own = [batch for batch in batches if batch.task == self.task]
        if is_sharded:
            match_passes(len(own), lambda: find_routes(batches[0]), self.device)
        used = torch.zeros_like(self.used)
        for batch in own:
            used = used + compute_usage(find_routes(batch).values(), self.experts - 1) * (len(batch.ids) / self.samples)
        self.counted = ranks.sum_over_ranks(used, self.device)
