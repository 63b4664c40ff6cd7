"""Frechet inception distance as clean-fid has it: resize in floats by Pillow, features of the network of 2015."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ...prw.files.regular_file import hash_file
from .cached_encoder import CachedEncoder
from .networks import CHECKPOINTS, MetricUnavailable, import_library

INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
"""Of NVIDIA's file. TorchScript is a program and runs: no other one is opened."""


class Inception(CachedEncoder):
    """The Inception network of 2015, as a TorchScript file."""

    def __init__(self, path: Path, device: str):
        super().__init__()
        check_inception(path)
        module = import_library("cleanfid.inception_torchscript")
        try:
            # clean-fid opens this name in a folder, and would download it otherwise
            self.network = module.InceptionV3W(str(path.parent), download=False).to(device).eval()
        except (RuntimeError, AttributeError, OSError, ValueError):
            raise MetricUnavailable(
                f"{path.name} is no TorchScript of the Inception network, expected NVIDIA's file of that very name: "
                f"download it again."
            ) from None
        self.resize = import_library("cleanfid.resize").build_resizer("clean")
        self.device = device

    @torch.no_grad()
    def encode(self, picture: np.ndarray) -> np.ndarray:
        """Returns 2048 features."""
        pixels = torch.from_numpy(self.resize(picture)).movedim(-1, 0)[None]
        return self.network(pixels.to(self.device))[0].cpu().numpy()


def check_inception(path: Path) -> None:
    """Checks that it is NVIDIA's file, under the name that clean-fid opens."""
    digest = hash_file(path)
    if (digest, path.name) != (INCEPTION_SHA256, CHECKPOINTS["inception"].name):
        raise MetricUnavailable(
            f"{path.name} has the SHA-256 {digest[:12]}..., expected NVIDIA's {CHECKPOINTS['inception'].name} with "
            f"{INCEPTION_SHA256[:12]}...: it is a program, and no other one is run. Download it again."
        )


def frechet_distance(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    """Computes |m - n|^2 + tr(A + B - 2 sqrt(AB)) of the features' means and covariances."""
    if min(len(a), len(b)) < 2:
        raise MetricUnavailable(f"FID needs two pictures or more, there are {min(len(a), len(b))}.")
    (m, left), (n, right) = (
        (np.mean(part, 0, np.float64), np.cov(part, rowvar=False, dtype=np.float64)) for part in (a, b)
    )
    # the trace of a root is the sum of the roots of the eigenvalues; rounding makes some of them negative or complex
    roots = np.sqrt(np.linalg.eigvals(left @ right).astype(complex)).real.sum()
    return float(((m - n) ** 2).sum() + np.trace(left) + np.trace(right) - 2 * roots)
