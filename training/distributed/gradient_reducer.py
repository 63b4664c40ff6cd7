"""Gradients of all processes, added up while the backward pass still makes the others.

They lie in one row, in the order in which the first process's first backward pass was done with them, and are sent in
pieces of it: a piece is under way as soon as this process is done with all in it and in those before. So messages have
one order in all processes, and are few.
"""

from collections import Counter
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from . import ranks

PIECE = 24 * 2**20
"""Bytes of a message, at least; those of DistributedDataParallel are about as large."""


class GradientReducer:
    """Runs backward passes and leaves in every process the sum of all processes' gradients."""

    def __init__(self, tensors: Sequence[Tensor], overlaps: bool = True):
        """`overlaps`: False where a backward pass sends messages of its own, between which these would come at random."""
        self.tensors, self.overlaps, self.is_summing = tensors, overlaps, False
        self.row: Tensor | None = None
        self.pieces: list[Tensor] = []
        self.piece_of: dict[int, int] = {}
        self.done: list[int] = []
        self.waiting: Counter[int] = Counter()
        """By piece: how many gradients it still lacks."""
        self.sent: list[dist.Work] = []
        self.nodes = [get_gradient_edge(tensor).node for tensor in tensors]
        for place, node in enumerate(self.nodes):
            node.register_hook(lambda *_, place=place: self._mark_done(place))

    def backward(self, loss: Tensor, last: bool) -> None:
        """Takes a loss's gradients; after the iteration's `last`, adds up all processes'. Unused tensors have zeros."""
        if not last or ranks.world_size() == 1:
            loss.backward()
        else:
            self._backward(loss)
        if last:
            for tensor in self.tensors:
                _fill_missing(tensor)

    def clear(self) -> None:
        """Clears the gradients for the next iteration."""
        if self.row is not None:
            self.row.zero_()
            return
        for tensor in self.tensors:
            tensor.grad = None

    def _backward(self, loss: Tensor) -> None:
        self.done, self.sent, self.is_summing = [], [], True
        self.waiting = Counter(self.piece_of.values())
        try:
            _ReachAll.apply(loss, *self.tensors).backward()
        finally:
            self.is_summing = False
        if self.row is None:
            self._lay_out(ranks.broadcast_object(self.done))
        self._send(len(self.pieces))
        for work in self.sent:
            work.wait()

    def _lay_out(self, order: Sequence[int]) -> None:
        """Moves the gradients into one row, in this order; later passes add to it."""
        self.row = torch.cat([_fill_missing(self.tensors[place]).flatten() for place in order])
        start = end = 0
        for number, place in enumerate(order, 1):
            tensor = self.tensors[place]
            tensor.grad = self.row[end : end + tensor.numel()].view_as(tensor)
            end += tensor.numel()
            self.piece_of[place] = len(self.pieces)
            if (end - start) * self.row.itemsize >= PIECE or number == len(order):
                self.pieces.append(self.row[start:end])
                start = end

    def _mark_done(self, place: int) -> None:
        if not self.is_summing:
            return
        self.done.append(place)
        if self.pieces:
            self.waiting[self.piece_of[place]] -= 1
            if self.overlaps:
                self._send(next((i for i in range(len(self.pieces)) if self.waiting[i]), len(self.pieces)))

    def _send(self, end: int) -> None:
        """Sends the pieces before this one that are not under way yet."""
        for piece in self.pieces[len(self.sent) : end]:
            self.sent.append(dist.all_reduce(piece, async_op=True))


class _ReachAll(torch.autograd.Function):
    """A loss that reaches all tensors, with nothing: a backward pass is then done with each, used or not."""

    @staticmethod
    def forward(ctx, loss: Tensor, *tensors: Tensor) -> Tensor:
        ctx.count = len(tensors)
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyrefly: ignore[bad-override]
        return grad, *[None] * ctx.count


def _fill_missing(tensor: Tensor) -> Tensor:
    """Gives the gradient; zeros for a tensor that has none: an expert that no sample took."""
    if tensor.grad is None:
        tensor.grad = torch.zeros_like(tensor)
    return tensor.grad
