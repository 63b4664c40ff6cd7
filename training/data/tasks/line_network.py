"""Draws line art by the network of "Informative Drawings" (Chan et al., 2022), as ControlNet++ does, and judges by it."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ....prw.files.validate import shorten_error

LINES_FILE = "image-to-line-drawings.pth"
WIDTH = 64


class LineDrawing(nn.Module):
    """Turns RGB into lines, 0 where there is ink; its parameters have the names of the public file."""

    def __init__(self):
        super().__init__()
        self.model0 = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, WIDTH, 7), nn.InstanceNorm2d(WIDTH), nn.ReLU())
        self.model1 = nn.Sequential(*_downsample(WIDTH), *_downsample(2 * WIDTH))
        self.model2 = nn.Sequential(*(_Residual(4 * WIDTH) for _ in range(3)))
        self.model3 = nn.Sequential(*_upsample(4 * WIDTH), *_upsample(2 * WIDTH))
        self.model4 = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(WIDTH, 1, 7), nn.Sigmoid())

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, x: Tensor) -> Tensor:
        return self.model4(self.model3(self.model2(self.model1(self.model0(x)))))


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()

        def layers() -> tuple[nn.Module, ...]:
            return nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)

        self.conv_block = nn.Sequential(*layers(), nn.ReLU(), *layers())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


def _downsample(width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.InstanceNorm2d(2 * width), nn.ReLU()


def _upsample(width: int) -> tuple[nn.Module, ...]:
    layer = nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1)
    return layer, nn.InstanceNorm2d(width // 2), nn.ReLU()


def open_lines(path: Path) -> LineDrawing:
    """Opens the public file of tensors, which is a pickle: this reads tensors and refuses all else."""
    network = LineDrawing()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # so much can be wrong with one
        raise ValueError(
            f"{path.name} does not hold the line drawing network ({shorten_error(error)}), "
            f"expected its public file of tensors: download it again."
        ) from None
    return network.eval().requires_grad_(False)


@torch.no_grad()
def draw_lines(network: LineDrawing, picture: np.ndarray) -> np.ndarray:
    """Draws a picture's lines: uint8 (height, width), black on white, as our experts know line art."""
    pixels = torch.tensor(picture).movedim(-1, 0)[None].to(network.device).float() / 255
    height, width = picture.shape[:2]
    lines = network(pixels)[0, 0, :height, :width]  # odd sides come out a pixel or three larger
    return (lines * 255).byte().cpu().numpy()
