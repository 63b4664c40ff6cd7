"""Gradients to the inputs of a frozen FLUX, whoever owns its weights.

A host keeps weights as inference tensors, in fp8, or in a buffer that the next layer overwrites: autograd may save none
of them. So a frozen layer computes without autograd and asks for its weight once more when the gradient comes. And a norm
works on a copy of its input, because the host's blocks add to that input in place afterwards.
"""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WeightOf = Callable[[nn.Module, Tensor], AbstractContextManager[Tensor]]
"""A layer's weight as it computes with it, on the device and in the type of the tensor given; good only within."""


@contextmanager
def pass_input_gradients(flux: nn.Module, weight_of: WeightOf) -> Generator[None]:
    """Lets gradients, within, pass through `flux` exactly; its modules are left as they were."""
    handles = []
    try:
        for module in flux.modules():
            if isinstance(module, nn.LayerNorm):
                handles.append(module.register_forward_pre_hook(_copy_input))
            elif detached := _make_detached(module, weight_of):
                handles.append(module.register_forward_pre_hook(detached.before))
                handles.append(module.register_forward_hook(detached.after))
        handles.append(flux.get_submodule("txt_in").register_forward_hook(_copy_output))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _copy_input(module: nn.Module, args: tuple) -> tuple:
    return (args[0].clone(), *args[1:]) if needs_gradient(args[0]) else args


def _copy_output(module: nn.Module, args: tuple, out: Tensor) -> Tensor:
    """Copies an output, for blocks add to the text in place, too,
    which autograd refuses of an output that _DetachedLayer connected."""
    return out.clone() if needs_gradient(out) else out


def needs_gradient(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad


def _make_detached(module: nn.Module, weight_of: WeightOf) -> "_DetachedLayer | None":
    if isinstance(module, nn.RMSNorm):
        return _DetachedLayer(weight_of, _normalize)
    # not every host's linear layer is torch's
    return _DetachedLayer(weight_of, _FrozenLinear.apply) if hasattr(module, "in_features") else None


class _DetachedLayer:
    """A layer that computes on a detached input; its output is then connected to the real one."""

    def __init__(self, weight_of: WeightOf, connect: Callable):
        self.weight_of, self.connect = weight_of, connect
        self.x = None

    def before(self, module: nn.Module, args: tuple) -> tuple:
        x, *rest = args
        self.x = x if needs_gradient(x) else None
        # a copy: fp8 layers may clamp their input in place
        return args if self.x is None else (x.detach().clone(), *rest)

    def after(self, module: nn.Module, args: tuple, out: Tensor) -> Tensor:
        x, self.x = self.x, None
        return out if x is None else self.connect(x, [out], module, self.weight_of)


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, out: list[Tensor], module: nn.Module, weight_of: WeightOf) -> Tensor:
        ctx.layer = module, weight_of
        return out[0]

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyrefly: ignore[bad-override]
        module, weight_of = ctx.layer
        with weight_of(module, grad) as weight:
            return grad @ weight, None, None, None


def _normalize(x: Tensor, out: list[Tensor], module: nn.RMSNorm, weight_of: WeightOf) -> Tensor:
    """Computes the norm once more, with a copy of its weight, which is small."""
    with weight_of(module, x) as weight:
        return F.rms_norm(x, module.normalized_shape, weight.clone(), module.eps)
