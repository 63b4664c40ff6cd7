"""Line art by the network that ControlNet++ draws and judges it with (data/tasks/line_network.py), for metrics."""

from pathlib import Path

import numpy as np

from ..data.tasks.line_network import draw_lines, open_lines
from .networks import report_unavailable


class LineNetwork:
    """The public file of tensors, opened."""

    def __init__(self, path: Path, device: str):
        with report_unavailable():
            self.network = open_lines(path).to(device)

    def predict(self, picture: np.ndarray) -> np.ndarray:
        """Draws a picture's lines: uint8 (height, width), black on white."""
        return draw_lines(self.network, picture)
