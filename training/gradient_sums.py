"""Gradients of all processes, added up while the backward pass still makes the others.

A sum is under way as soon as this process is done with a tensor and with those before it. Messages have one order in
all processes: the one in which the first process's first backward pass was done with them.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from . import ranks


class GradientSums:
    def __init__(self, tensors: Sequence[Tensor], meanwhile: bool = True):
        """`meanwhile`: not where a backward pass has messages of its own, in whose order these would come at random."""
        self.meanwhile = meanwhile
        self.tensors, self.order = tensors, list(range(len(tensors)))
        self.learned, self.summing = False, False
        self.done: list[int] = []
        self.sent: list[dist.Work] = []
        self.nodes = [get_gradient_edge(tensor).node for tensor in tensors]
        for place, node in enumerate(self.nodes):
            node.register_hook(lambda *_, place=place: self._done_with(place))

    def backward(self, loss: Tensor, last: bool) -> None:
        """`last`: no other gradients of the iteration will follow. Then all tensors have one, those unused zeros."""
        if not last or ranks.count() == 1:
            loss.backward()
        else:
            self._backward(loss)
        if last:
            for tensor in self.tensors:
                _fill(tensor)

    def _backward(self, loss: Tensor) -> None:
        self.done, self.sent, self.summing = [], [], True
        try:
            _Tied.apply(loss, *self.tensors).backward()
        finally:
            self.summing = False
        self._send()
        for work in self.sent:
            work.wait()
        if not self.learned:
            self.order, self.learned = ranks.from_first(self.done), True

    def _done_with(self, place: int) -> None:
        if self.summing:
            self.done.append(place)
            if self.meanwhile:
                self._send()

    def _send(self) -> None:
        waiting = set(self.done)
        while len(self.sent) < len(self.order) and (coming := self.order[len(self.sent)]) in waiting:
            _fill(self.tensors[coming])
            self.sent.append(dist.all_reduce(self.tensors[coming].grad, async_op=True))


class _Tied(torch.autograd.Function):
    """A loss that reaches all tensors, with nothing: a backward pass is then done with each, used or not."""

    @staticmethod
    def forward(ctx, loss: Tensor, *tensors: Tensor) -> Tensor:
        ctx.count = len(tensors)
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, *[None] * ctx.count


def _fill(tensor: Tensor) -> None:
    """An expert that no sample took has no gradient."""
    if tensor.grad is None:
        tensor.grad = torch.zeros_like(tensor)
