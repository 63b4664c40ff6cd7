"""A base whose blocks rest in the machine's memory: each visits the device for its turn, and the next one is under way.

A layer asks for its numbers where it computes, forwards and for the gradient, so that autograd keeps none of them and a
turn may come in any order. Only what comes next is a guess: the neighbour, in the direction of the last move.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...prw.flux.blocks import Linear
from ...prw.weaving import named_blocks
from .quantize import NarrowLinear, handed_on, widened

AT_ONCE = 2
"""Blocks on the device: the one at work, and the next."""
Copies = dict[nn.Module, dict[str, Tensor]]
"""By layer and name."""


class Visits:
    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self.blocks: list[list[nn.Module]] = []
        """The layers of each."""
        self.here: dict[int, Copies] = {}
        self.last, self.direction = -1, 1
        self.stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    @torch.compiler.disable()
    def copies(self, place: int, layer: nn.Module) -> dict[str, Tensor]:
        """A layer's numbers on the device, for now."""
        if place != self.last:
            self.direction, self.last = 1 if place > self.last else -1, place
            coming = place + self.direction
            self.here = {known: self.here[known] for known in (place, coming) if known in self.here}
            self._bring(place)
            self._wait(place)
            if 0 <= coming < len(self.blocks):
                self._bring(coming)
        return self.here[place][layer]

    def _bring(self, place: int) -> None:
        if place not in self.here:
            with torch.cuda.stream(self.stream):
                self.here[place] = {
                    layer: {
                        name: tensor.detach().to(self.device, non_blocking=True, copy=True)
                        for name, tensor in layer.named_parameters()
                    }
                    for layer in self.blocks[place]
                }

    def _wait(self, place: int) -> None:
        if self.stream is None:
            return
        now = torch.cuda.current_stream(self.device)
        now.wait_stream(self.stream)
        for copies in self.here[place].values():
            for tensor in copies.values():  # their memory was taken on the other stream
                tensor.record_stream(now)


class VisitingLinear(nn.Module):
    def __init__(self, resting: Linear | NarrowLinear, visits: Visits, place: int):
        super().__init__()
        self.in_features, self.out_features = resting.in_features, resting.out_features
        self.resting, self.visits, self.place = resting, visits, place

    def forward(self, x: Tensor) -> Tensor:
        return _Product.apply(x, self)

    def numbers(self, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias."""
        found = self.visits.copies(self.place, self.resting)
        if "weight" in found:
            weight = found["weight"]
        else:
            weight = widened(found["codes"], found["scale"], self.resting.kind, self.in_features)
        bias = found.get("bias")
        return weight.to(like.dtype), None if bias is None else bias.to(like.dtype)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, layer: VisitingLinear) -> Tensor:
        ctx.layer, ctx.in_one = layer, x.is_contiguous()
        return F.linear(x, *layer.numbers(x))

    @staticmethod
    def backward(ctx, grad: Tensor):
        return handed_on(grad, ctx.layer.numbers(grad)[0], ctx.in_one), None


def let_blocks_visit(flux: nn.Module, device: torch.device | str) -> None:
    """In place: the layers of blocks stay where they are, all else goes to the device."""
    visits = Visits(device)
    for place, (_, block) in enumerate(named_blocks(flux)):
        layers = {name: layer for name, layer in block.named_modules() if isinstance(layer, Linear | NarrowLinear)}
        for name, layer in layers.items():
            block.set_submodule(name, nn.Identity())
            if visits.stream is not None:
                layer._apply(Tensor.pin_memory)
        visits.blocks.append(list(layers.values()))
        block.to(device)
        for name, layer in layers.items():
            block.set_submodule(name, VisitingLinear(layer, visits, place))
    for name, module in flux.named_children():
        if not name.endswith("_blocks"):
            module.to(device)
