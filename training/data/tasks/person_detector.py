"""Where people stand in a picture, by a model of transformers that detects COCO's objects (RT-DETR, DETR, YOLOS)."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..model_folder import check_trusted, load_network, load_processor, read_config

PERSON = "person"
CONFIDENCE = 0.5
"""Boxes that the model is less sure of hold nobody: our choice."""


class PersonDetector(nn.Module):
    """A model and its processor; called with a picture, it gives a box (left, top, width, height) for each person."""

    network: Any

    def __init__(self, network: Any, processor: Any):
        super().__init__()
        self.network, self.processor = network, processor

    def forward(self, picture: np.ndarray) -> list[list[float]]:
        inputs = self.processor(images=picture, input_data_format="channels_last", return_tensors="pt")
        outputs = self.network(**inputs.to(self.network.device))
        height, width = picture.shape[:2]
        (found,) = self.processor.post_process_object_detection(
            outputs, threshold=CONFIDENCE, target_sizes=[(height, width)]
        )
        boxes = []
        for label, box in zip(found["labels"].tolist(), found["boxes"].float().cpu().numpy(), strict=True):
            left, top, right, bottom = box.clip(0, (width, height, width, height)).tolist()
            if self.network.config.id2label[label] == PERSON and left < right and top < bottom:
                boxes.append([left, top, right - left, bottom - top])
        return boxes


def finds_people(folder: Path) -> bool:
    """Says whether the model in a folder can be trusted, and detects objects, and people among them."""
    try:
        config = read_config(folder)
        check_trusted(folder)
    except ValueError:
        return False
    labels = config.get("id2label")
    return (
        str(config["architecture"]).endswith("ForObjectDetection")
        and isinstance(labels, dict)
        and PERSON in labels.values()
    )


def open_detector(folder: Path) -> PersonDetector:
    return PersonDetector(load_network(folder, "AutoModelForObjectDetection").float(), load_processor(folder))
