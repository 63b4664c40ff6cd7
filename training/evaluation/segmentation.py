"""Classes that a segmentation network sees in a picture, and mean IoU over a set as mmsegmentation has it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..data.tasks.map_networks import opener_of
from .networks import Unmeasured, network, preparation, unmeasured

IGNORED = 255
Overlap = tuple[np.ndarray, np.ndarray]
"""Pixels of each class in both, and in either."""


class Segmenter:
    def __init__(self, folder: Path, device: str):
        with unmeasured():
            _, opener = opener_of(folder)
        self.processor = preparation(folder, "AutoImageProcessor")
        self.network = network(folder, opener, device)
        self.classes, self.device = self.network.config.num_labels, device

    @torch.no_grad()
    def read(self, picture: np.ndarray) -> np.ndarray:
        """Class numbers (height, width)."""
        given = self.processor(images=picture, input_data_format="channels_last", return_tensors="pt")
        found = self.network(given.pixel_values.to(self.device))
        (seen,) = self.processor.post_process_semantic_segmentation(found, target_sizes=[picture.shape[:2]])
        return seen.cpu().numpy()


def overlap(found: np.ndarray, wanted: np.ndarray, classes: int) -> Overlap:
    counts = wanted != IGNORED
    if counts.any() and wanted[counts].max() >= classes:
        raise Unmeasured(
            f"The labels go up to {wanted[counts].max()}, the network tells {classes} classes apart: choose one that was "
            f"trained on this benchmark."
        )
    found, wanted = found[counts], wanted[counts]
    drawn, asked = (np.bincount(part, minlength=classes)[:classes] for part in (found, wanted))
    both = np.bincount(found[found == wanted], minlength=classes)[:classes]
    return both, drawn + asked - both


def mean_iou(overlaps: Sequence[Overlap]) -> float:
    """In percent, over the classes that occur at all; their pixels are added up over all pictures first."""
    both, either = (np.sum(part, 0) for part in zip(*overlaps))
    occurs = either > 0
    return 100 * float(np.mean(both[occurs] / either[occurs])) if occurs.any() else float("nan")
