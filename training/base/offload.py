"""A base whose blocks stay in host memory: each is copied to the device when it computes, and the next one in advance.

A layer asks for its weights where it computes, forwards and for the gradient, so that autograd keeps none of them and
blocks may come in any order. Only which one is copied in advance is a guess: the neighbour, in the direction of the last
move.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...prw.flux.layers import Linear
from ...prw.weaving import named_blocks
from .quantize import QuantizedLinear, dequantize, input_gradient

RESIDENT_BLOCKS = 2
"""Blocks on the device: the one that computes, and the next."""
Copies = dict[nn.Module, dict[str, Tensor]]
"""By layer and name."""


class BlockOffloader:
    """Copies blocks to the device and forgets them."""

    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self.blocks: list[list[nn.Module]] = []
        """The layers of each, in host memory."""
        self.resident: dict[int, Copies] = {}
        """By the block's number."""
        self.last, self.direction = -1, 1
        self.stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    @torch.compiler.disable()
    def copies(self, place: int, layer: nn.Module) -> dict[str, Tensor]:
        """Gives a layer's parameters on the device, good until another block is asked for."""
        if place != self.last:
            self.direction, self.last = 1 if place > self.last else -1, place
            following = place + self.direction
            self.resident = {known: self.resident[known] for known in (place, following) if known in self.resident}
            self._load(place)
            self._wait(place)
            if 0 <= following < len(self.blocks):
                self._load(following)
        return self.resident[place][layer]

    def _load(self, place: int) -> None:
        if place not in self.resident:
            with torch.cuda.stream(self.stream):
                self.resident[place] = {
                    layer: {
                        name: tensor.detach().to(self.device, non_blocking=True, copy=True)
                        for name, tensor in layer.named_parameters()
                    }
                    for layer in self.blocks[place]
                }

    def _wait(self, place: int) -> None:
        if self.stream is None:
            return
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        for copies in self.resident[place].values():
            for tensor in copies.values():  # their memory was taken on the other stream
                tensor.record_stream(current)


class OffloadedLinear(nn.Module):
    """Computes as the layer in host memory that it stands for."""

    def __init__(self, layer: Linear | QuantizedLinear, offloader: BlockOffloader, block: int):
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.layer, self.offloader, self.block = layer, offloader, block

    def forward(self, x: Tensor) -> Tensor:
        return _Product.apply(x, self)

    def weights(self, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gives weight and bias on the device, in the type of `like`."""
        copies = self.offloader.copies(self.block, self.layer)
        if isinstance(self.layer, QuantizedLinear):
            weight = dequantize(copies["codes"], copies["scale"], self.layer.kind, self.in_features)
        else:
            weight = copies["weight"]
        bias = copies.get("bias")
        return weight.to(like.dtype), None if bias is None else bias.to(like.dtype)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, layer: OffloadedLinear) -> Tensor:
        ctx.layer, ctx.is_contiguous = layer, x.is_contiguous()
        return F.linear(x, *layer.weights(x))

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyrefly: ignore[bad-override]
        return input_gradient(grad, ctx.layer.weights(grad)[0], ctx.is_contiguous), None


def offload_blocks(flux: nn.Module, device: torch.device | str) -> None:
    """Leaves the layers of blocks where they are and moves all else to the device, in place."""
    offloader = BlockOffloader(device)
    for place, (_, block) in enumerate(named_blocks(flux)):
        layers = {name: layer for name, layer in block.named_modules() if isinstance(layer, Linear | QuantizedLinear)}
        for name, layer in layers.items():
            block.set_submodule(name, nn.Identity())
            if offloader.stream is not None:
                layer._apply(Tensor.pin_memory)
        offloader.blocks.append(list(layers.values()))
        block.to(device)
        for name, layer in layers.items():
            block.set_submodule(name, OffloadedLinear(layer, offloader, place))
    for name, module in flux.named_children():
        if not name.endswith("_blocks"):
            module.to(device)
