"""A frozen base in fewer bits: its blocks' weights are stored as codes and scales, and become numbers when they compute.

fp8 and int8 have a scale a row, nf4 (QLoRA, Dettmers et al. 2023) one for 64 numbers that follow each other. Weights
are dequantized once for the forward and once more for the gradient, so that no copy of them waits in between.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...prw.flux.layers import Linear
from ...prw.weaving import named_blocks

GROUP = 64
NF4 = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334)
NF4 += (-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224)
NF4 += (0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
"""The paper's appendix E: quantiles of a normal distribution."""


class Format(NamedTuple):
    """How weights are stored."""

    quantize: Callable[[Tensor], tuple[Tensor, Tensor]]
    """A weight (out, in) in fp32 to codes and scales."""
    dequantize: Callable[[Tensor, Tensor], Tensor]
    """And back, but for the shape."""
    bytes: float
    """Bytes that one number takes, with its group's scale (nf4); a scale of a row is not counted."""


def _scale_down(weight: Tensor, largest: float) -> tuple[Tensor, Tensor]:
    scale = weight.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / largest
    return weight / scale, scale


def _quantize_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    units, scale = _scale_down(weight, torch.finfo(torch.float8_e4m3fn).max)
    return units.to(torch.float8_e4m3fn), scale


def _quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    units, scale = _scale_down(weight, 127)
    return units.round().to(torch.int8), scale


def _quantize_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    units, scale = _scale_down(weight.view(-1, GROUP), 1)
    table = torch.tensor(NF4, device=weight.device)
    codes = torch.bucketize(units, (table[1:] + table[:-1]) / 2).to(torch.uint8).view(-1, 2)
    return codes[:, 0] << 4 | codes[:, 1], scale


def _multiply(codes: Tensor, scale: Tensor) -> Tensor:
    return codes.to(scale.dtype) * scale


def _look_up(codes: Tensor, scale: Tensor) -> Tensor:
    pairs = torch.stack((codes >> 4, codes & 15), dim=-1).int()
    return torch.tensor(NF4, device=codes.device)[pairs].view(-1, GROUP) * scale


FORMATS = {
    "fp8": Format(_quantize_fp8, _multiply, 1),
    "int8": Format(_quantize_int8, _multiply, 1),
    "nf4": Format(_quantize_nf4, _look_up, 0.5 + 4 / GROUP),
}


class QuantizedLinear(nn.Module):
    """A frozen linear layer in a format; it computes in its input's type, as Linear does."""

    def __init__(self, linear: Linear, kind: str, device: torch.device | str):
        super().__init__()
        self.in_features, self.out_features, self.kind = linear.in_features, linear.out_features, kind
        parts = FORMATS[kind].quantize(linear.weight.detach().to(device).float())
        home = linear.weight.device
        self.codes, self.scale = (nn.Parameter(part.to(home), requires_grad=False) for part in parts)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return _Product.apply(x, self.codes, self.scale, self.bias, self.kind)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None, kind: str) -> Tensor:
        ctx.save_for_backward(codes, scale)
        ctx.kind, ctx.width, ctx.is_contiguous = kind, x.shape[-1], x.is_contiguous()
        weight = dequantize(codes, scale, kind, x.shape[-1]).to(x.dtype)
        return F.linear(x, weight, None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyrefly: ignore[bad-override]
        codes, scale = ctx.saved_tensors
        weight = dequantize(codes, scale, ctx.kind, ctx.width).to(grad.dtype)
        return input_gradient(grad, weight, ctx.is_contiguous), None, None, None, None


def input_gradient(grad: Tensor, weight: Tensor, is_contiguous: bool) -> Tensor:
    """Gives the gradient of a layer's input, to the bit as torch's own layer has it, which takes samples one by one
    where they do not lie in one piece of memory."""
    if is_contiguous or grad.ndim < 3:
        return (grad.flatten(0, -2) @ weight).unflatten(0, grad.shape[:-1])
    return grad @ weight.expand(len(grad), -1, -1)


def dequantize(codes: Tensor, scale: Tensor, kind: str, width: int) -> Tensor:
    """Gives the weight (out, in) that codes and scales stand for, in fp32."""
    return FORMATS[kind].dequantize(codes, scale).view(-1, width)


@torch.no_grad()
def quantize_blocks(flux: nn.Module, kind: str, device: torch.device | str) -> None:
    """Quantizes the blocks in place, layer by layer, on the device; the result lies where the weights lay."""
    for _, block in named_blocks(flux):
        for name, module in list(block.named_modules()):
            if isinstance(module, Linear) and module.weight.numel() % GROUP == 0:
                block.set_submodule(name, QuantizedLinear(module, kind, device))
