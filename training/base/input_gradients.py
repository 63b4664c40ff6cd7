"""A frozen FLUX that hands gradients on to its inputs, whoever owns its weights.

A host keeps weights as inference tensors, in fp8, or in a buffer that the next layer overwrites: autograd may save none
of them. So a frozen layer computes unwatched and asks for its weight once more when the gradient comes. And a norm
watches a copy of its input, because the host's blocks add to that input in place afterwards.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WeightOf = Callable[[nn.Module, Tensor], AbstractContextManager[Tensor]]
"""A layer's weight as it computes with it, on the device and in the type of the tensor given; good only within."""


@contextmanager
def passing_gradients(flux: nn.Module, weight_of: WeightOf) -> Iterator[None]:
    """Within, gradients pass through `flux` exactly; its modules are left as they were."""
    handles = []
    try:
        for module in flux.modules():
            if isinstance(module, nn.LayerNorm):
                handles.append(module.register_forward_pre_hook(_copied))
            elif unwatched := _unwatched(module, weight_of):
                handles.append(module.register_forward_pre_hook(unwatched.before))
                handles.append(module.register_forward_hook(unwatched.after))
        handles.append(flux.txt_in.register_forward_hook(_owned))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _copied(module: nn.Module, args: tuple) -> tuple:
    return (args[0].clone(), *args[1:]) if watched(args[0]) else args


def _owned(module: nn.Module, args: tuple, out: Tensor) -> Tensor:
    """Blocks add to the text in place, too, which autograd refuses of a layer that was tied."""
    return out.clone() if watched(out) else out


def watched(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad


def _unwatched(module: nn.Module, weight_of: WeightOf) -> "_Unwatched | None":
    if isinstance(module, nn.RMSNorm):
        return _Unwatched(weight_of, _normed)
    # not every host's linear layer is torch's
    return _Unwatched(weight_of, _Linear.apply) if hasattr(module, "in_features") else None


class _Unwatched:
    """A layer that computes on a detached input; what it made is then tied to the real one."""

    def __init__(self, weight_of: WeightOf, tie: Callable):
        self.weight_of, self.tie = weight_of, tie
        self.x = None

    def before(self, module: nn.Module, args: tuple) -> tuple:
        x, *rest = args
        self.x = x if watched(x) else None
        # a copy: fp8 layers may clamp their input in place
        return args if self.x is None else (x.detach().clone(), *rest)

    def after(self, module: nn.Module, args: tuple, out: Tensor) -> Tensor:
        x, self.x = self.x, None
        return out if x is None else self.tie(x, [out], module, self.weight_of)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, out: list[Tensor], module: nn.Module, weight_of: WeightOf) -> Tensor:
        ctx.layer = module, weight_of
        return out[0]

    @staticmethod
    def backward(ctx, grad: Tensor):
        module, weight_of = ctx.layer
        with weight_of(module, grad) as weight:
            return grad @ weight, None, None, None


def _normed(x: Tensor, out: list[Tensor], module: nn.Module, weight_of: WeightOf) -> Tensor:
    """Once more, with a weight of its own: it is small."""
    with weight_of(module, x) as weight:
        return F.rms_norm(x, module.normalized_shape, weight.clone(), module.eps)
