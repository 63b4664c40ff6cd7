"""Classes by a segmentation network, and mean IoU over a set as mmsegmentation has it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..data.tasks.map_networks import find_opener
from .networks import MetricUnavailable, open_network, open_processor, report_unavailable

IGNORE_LABEL = 255
"""The label of pixels that do not count."""
Overlap = tuple[np.ndarray, np.ndarray]
"""Pixels of each class in both, and in either."""


class Segmenter:
    """A segmentation network from a folder of transformers."""

    def __init__(self, folder: Path, device: str):
        with report_unavailable():
            _, opener = find_opener(folder)
        self.processor = open_processor(folder, "AutoImageProcessor")
        self.network = open_network(folder, opener, device)
        self.classes, self.device = self.network.config.num_labels, device

    @torch.no_grad()
    def predict(self, picture: np.ndarray) -> np.ndarray:
        """Returns class numbers (height, width)."""
        inputs = self.processor(images=picture, input_data_format="channels_last", return_tensors="pt")
        outputs = self.network(inputs.pixel_values.to(self.device))
        (labels,) = self.processor.post_process_semantic_segmentation(outputs, target_sizes=[picture.shape[:2]])
        return labels.cpu().numpy()


def count_overlap(predicted: np.ndarray, wanted: np.ndarray, classes: int) -> Overlap:
    """Counts the pixels of each class in one picture's predicted and wanted class numbers."""
    counts = wanted != IGNORE_LABEL
    if counts.any() and wanted[counts].max() >= classes:
        raise MetricUnavailable(
            f"The labels go up to {wanted[counts].max()}, the network tells {classes} classes apart: choose one that was "
            f"trained on this benchmark."
        )
    predicted, wanted = predicted[counts], wanted[counts]
    a, b = (np.bincount(labels, minlength=classes)[:classes] for labels in (predicted, wanted))
    both = np.bincount(predicted[predicted == wanted], minlength=classes)[:classes]
    return both, a + b - both


def compute_miou_percent(overlaps: Sequence[Overlap]) -> float:
    """Computes the mIoU in percent, over the classes that occur at all;
    their pixels are added up over all pictures first."""
    both, either = (np.sum(part, 0) for part in zip(*overlaps))
    occurs = either > 0
    return 100 * float(np.mean(both[occurs] / either[occurs])) if occurs.any() else float("nan")
