"""Distances between pictures of one size, pixel by pixel or by their structure."""

import numpy as np
import torch
from torch import Tensor

from .networks import MetricUnavailable, import_library

MIN_MS_SSIM_SIDE = 161
"""Shorter side from which on a picture has all five scales of MS-SSIM, halved four times under a window of 11."""


def l1(a: np.ndarray, b: np.ndarray) -> float:
    """Computes mean absolute difference of values from 0 to 1."""
    return float(np.abs(a.astype(np.float64) - b).mean() / 255)


def rmse(a: np.ndarray, b: np.ndarray) -> float:
    """Computes root of the mean squared difference of values from 0 to 255, as ControlNet++ has it."""
    return float(np.sqrt(((a.astype(np.float64) - b) ** 2).mean()))


def colour_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Computes mean distance in CIELAB, the Delta E of 1976: about 2 can be seen, from black to white it is 100."""
    lab = import_library("kornia.color").rgb_to_lab
    return float((lab(_to_planes(a)) - lab(_to_planes(b))).norm(dim=1).mean())


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Computes structural similarity in percent; Gaussian window of 11 with sigma 1.5, mirrored at the border,
    as torchmetrics has it."""
    image = import_library("torchmetrics.functional.image")
    return 100 * float(image.structural_similarity_index_measure(_to_planes(a), _to_planes(b), data_range=1.0))


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Computes structural similarity over five scales, in percent."""
    if min(a.shape[:2]) < MIN_MS_SSIM_SIDE:
        raise MetricUnavailable(
            f"The pictures are {a.shape[1]} x {a.shape[0]}, MS-SSIM needs {MIN_MS_SSIM_SIDE} pixels a side or more."
        )
    image = import_library("torchmetrics.functional.image")
    similarity = image.multiscale_structural_similarity_index_measure(_to_planes(a), _to_planes(b), data_range=1.0)
    return 100 * float(similarity)


def _to_planes(picture: np.ndarray) -> Tensor:
    """Gives (1, channels, height, width), in double precision: differences of near-equal variances lose digits."""
    return torch.from_numpy(np.atleast_3d(picture).astype(np.float64) / 255).movedim(-1, 0)[None]
