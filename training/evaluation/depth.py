"""Depth as ControlNet++ measures it: DPT's answer in grey values, its nearest point white."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .networks import open_network, open_processor


class DepthNetwork:
    """DPT from a folder of transformers."""

    def __init__(self, folder: Path, device: str):
        self.network = open_network(folder, "DPTForDepthEstimation", device)
        self.processor = open_processor(folder, "AutoImageProcessor")
        self.device = device

    @torch.no_grad()
    def predict(self, picture: np.ndarray) -> np.ndarray:
        """Estimates a picture's depth: uint8 (height, width)."""
        inputs = self.processor(images=picture, input_data_format="channels_last", return_tensors="pt")
        depth = self.network(inputs.pixel_values.to(self.device)).predicted_depth[0].float().cpu().numpy()
        grey = Image.fromarray((depth / depth.max() * 255).clip(0, 255).astype(np.uint8))
        return np.array(grey.resize(picture.shape[1::-1], Image.Resampling.BILINEAR))


def stretch(plane: np.ndarray) -> np.ndarray:
    """Scales a given depth map from its least value at 0 to its greatest at 255."""
    low, high = float(plane.min()), float(plane.max())
    return ((plane - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
