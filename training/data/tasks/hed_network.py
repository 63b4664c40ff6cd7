"""Draws soft edges by the network of holistically-nested edge detection (Xie and Tu, 2015), with ControlNet's weights.

Five blocks of VGG-16's shape, each with an edge map of its own; the answer is the mean of the five. Its authors
publish ControlNetHED.pth only; the same names and tensors as safetensors are what is read here.
"""

import os
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....prw.files.safe_file import SafeFile
from ....prw.fit_image import limit_size
from .control import to_map

HED_FILE = "ControlNetHED.safetensors"
BLOCKS = ((3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3))
"""Channels in and out, and convolutions."""
MAX_SIDE = 1024
"""Longest side that the network sees, our choice: beyond it an edge is finer than what it learned."""


class Block(nn.Module):
    """Convolutions of one scale, and the projection that gives its edge map."""

    def __init__(self, inputs: int, outputs: int, depth: int):
        super().__init__()
        widths = (inputs, *[outputs] * depth)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:]))
        self.projection = nn.Conv2d(outputs, 1, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        for conv in self.convs:
            hidden = conv(hidden).relu()
        return hidden


class HedNetwork(nn.Module):
    """Called with a picture, it gives the map."""

    kind = "hed"

    def __init__(self):
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1))
        for number, shape in enumerate(BLOCKS, 1):
            self.add_module(f"block{number}", Block(*shape))

    def edges(self, pixels: Tensor) -> Tensor:
        """Turns 0 to 255 (1, 3, height, width) into edges before the sigmoid (1, 1, height, width);
        sides are multiples of 16."""
        hidden, size, maps = pixels - self.norm, pixels.shape[2:], list[Tensor]()
        for number in range(1, 1 + len(BLOCKS)):
            block = self.get_submodule(f"block{number}")
            assert isinstance(block, Block)
            hidden = block(hidden if number == 1 else F.max_pool2d(hidden, 2))
            maps.append(F.interpolate(block.projection(hidden), size, mode="bilinear") / len(BLOCKS))
        return reduce(torch.add, maps)

    def forward(self, picture: np.ndarray) -> np.ndarray:
        pixels = limit_size(torch.tensor(picture)[None] / 255, MAX_SIDE).movedim(-1, 1)  # (1, 3, height, width)
        edges = self.edges(pixels.to(self.norm.device) * 255)
        edges = F.interpolate(edges, picture.shape[:2], mode="bilinear", antialias=True)
        return to_map(edges.sigmoid()[0, 0].cpu())


def open_hed(path: str | os.PathLike) -> HedNetwork:
    file, network = SafeFile(path), HedNetwork()
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if {name: file.shape(name) for name in file} != expected:
        raise ValueError(
            f"{file.path.name} is not the network that draws HED, expected the {len(expected)} tensors of "
            f"ControlNetHED.pth (norm, block1.convs.0.weight, ...): convert that file."
        )
    network.load_state_dict({name: file[name].float() for name in file})
    return network.eval().requires_grad_(False)
