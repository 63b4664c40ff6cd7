"""Draws depth, segmentation and pose maps by transformers' models."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....prw.files.validate import shorten, shorten_error
from ..box import Size
from ..formats.palettes import PALETTES
from ..model_folder import load_network, load_processor, read_config
from .control import to_map
from .person_detector import PersonDetector
from .skeleton import COCO_POINTS, draw_skeletons, name_points

METRIC_MODELS = ("depth_pro", "glpn", "prompt_depth_anything", "zoedepth")
"""Models that say how far; all others say how near, unless their configuration knows better."""
MIN_DEPTH = 1e-3
"""In metres: what is nearer counts as this near."""
MAX_SIDE = 1024
"""Longest side in which classes are weighed: a plane of numbers for each of 150 classes fills the memory."""

COCO_EXPERT = 0
"""Which of ViTPose+'s experts was trained on COCO."""


class MapModel(nn.Module):
    """A model and its processor; called with a picture, it gives the map."""

    kind = ""
    """The kind of map that it draws."""
    network: Any

    def __init__(self, name: str, network: Any, processor: Any):
        super().__init__()
        self.name, self.network, self.processor = name, network, processor

    def forward(self, picture: np.ndarray) -> np.ndarray:
        size = picture.shape[:2]
        try:  # said, because a height of one or three pixels would be taken for channels
            inputs = self.processor(images=picture, input_data_format="channels_last", return_tensors="pt")
        except torch.OutOfMemoryError:
            raise
        except (ValueError, RuntimeError) as error:  # as Depth Anything's and ZoeDepth's do for what is too narrow
            raise ValueError(
                f"{self.name} cannot see a picture of {size[1]} x {size[0]} pixels ({shorten_error(error)}), expected a larger "
                f"or less narrow one, or a preprocessor_config.json that fits: scale it, or choose another model."
            ) from None
        return self.read(self.network(**inputs.to(self.network.device)), size)

    def read(self, outputs: Any, size: Size) -> np.ndarray:
        """Makes a map of the picture's size of what the network gave."""
        raise NotImplementedError


class DepthModel(MapModel):
    """Near is white, as MiDaS and the public control sets have it."""

    kind = "depth"

    def read(self, outputs: Any, size: Size) -> np.ndarray:
        process = self.processor.post_process_depth_estimation
        options = {"source_sizes": [size]} if "source_sizes" in inspect.signature(process).parameters else {}
        (depth,) = process(outputs, target_sizes=[size], **options)
        return to_map(normalize(self.to_nearness(depth["predicted_depth"].float().reshape(size))).cpu())

    def to_nearness(self, depth: Tensor) -> Tensor:
        config = self.network.config
        metric = config.model_type in METRIC_MODELS or getattr(config, "depth_estimation_type", "") == "metric"
        return 1 / depth.clamp(min=MIN_DEPTH) if metric else depth


class SegModel(MapModel):
    """Each class in its colour."""

    kind = "seg"

    def __init__(self, name: str, network: Any, processor: Any):
        super().__init__(name, network, processor)
        classes = network.config.num_labels
        if classes not in PALETTES:
            raise ValueError(
                f"{name} tells {classes} classes apart, expected 150 (ADE20K), 133 (COCO), 171 or 182 (COCO-Stuff), for "
                f"which there are colours: choose another model."
            )
        self.palette = PALETTES[classes]

    def read(self, outputs: Any, size: Size) -> np.ndarray:
        scale = min(1.0, MAX_SIDE / max(size))
        small = tuple(max(1, round(side * scale)) for side in size)
        (classes,) = self.processor.post_process_semantic_segmentation(outputs, target_sizes=[small])
        classes = F.interpolate(classes[None, None].float(), size, mode="nearest-exact")[0, 0].long()
        return self.palette[classes.cpu().numpy()]


class PoseModel(MapModel):
    """A skeleton for each person; without a detector the whole picture is one person's box."""

    kind = "pose"

    def __init__(self, name: str, network: Any, processor: Any):
        super().__init__(name, network, processor)
        self.detector: PersonDetector | None = None
        if (points := network.config.num_labels) != len(COCO_POINTS):
            raise ValueError(
                f"{name} finds {points} points of a person, expected COCO's {len(COCO_POINTS)}, of which the map is drawn: "
                f"choose another model."
            )

    def forward(self, picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        boxes = [[0.0, 0.0, float(width), float(height)]] if self.detector is None else self.detector(picture)
        people = self.find_poses(picture, boxes) if boxes else []
        named = [name_points(one["keypoints"].tolist(), one["scores"].tolist(), (height, width)) for one in people]
        return draw_skeletons(named, (height, width))

    def find_poses(self, picture: np.ndarray, boxes: list[list[float]]) -> list[dict[str, Tensor]]:
        """Returns keypoints and scores of the person in each box."""
        inputs = self.processor(images=picture, boxes=[boxes], input_data_format="channels_last", return_tensors="pt")
        if self.network.config.backbone_config.num_experts > 1:
            inputs["dataset_index"] = torch.full((len(boxes),), COCO_EXPERT)
        outputs = self.network(**inputs.to(self.network.device))
        (people,) = self.processor.post_process_pose_estimation(outputs, boxes=[boxes])
        return people


ENDINGS: dict[str, tuple[type[MapModel], str]] = {
    "ForDepthEstimation": (DepthModel, "AutoModelForDepthEstimation"),
    "ForSemanticSegmentation": (SegModel, "AutoModelForSemanticSegmentation"),
    "ForUniversalSegmentation": (SegModel, "AutoModelForUniversalSegmentation"),
    "ForInstanceSegmentation": (SegModel, "AutoModelForUniversalSegmentation"),
    "VitPoseForPoseEstimation": (PoseModel, "VitPoseForPoseEstimation"),
}
"""How the names of transformers' classes end, and what wraps and loads them."""
TASK_FIRST = "OneFormer"
"""How classes begin that read a task in words beside the picture: no map of ours has one."""


def find_kind(folder: Path) -> str:
    """Finds the kind of map that the model in a folder draws; empty: none."""
    try:
        return find_opener(folder)[0].kind
    except ValueError:
        return ""


def open_model(folder: Path) -> MapModel:
    cls, opener = find_opener(folder)
    return cls(folder.name, load_network(folder, opener).float(), load_processor(folder))


def find_opener(folder: Path) -> tuple[type[MapModel], str]:
    architecture = str(read_config(folder)["architecture"])
    for ending, opener in ENDINGS.items():
        if architecture.endswith(ending) and not architecture.startswith(TASK_FIRST):
            return opener
    raise ValueError(
        f"{folder.name} holds {shorten(architecture)}, expected a model for depth, semantic segmentation or pose: "
        f"choose another."
    )


def normalize(plane: Tensor) -> Tensor:
    """Scales its least value to 0 and its greatest to 1."""
    low, high = plane.min(), plane.max()
    return (plane - low) / (high - low) if high > low else plane - low
