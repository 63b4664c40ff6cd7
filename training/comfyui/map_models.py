"""Networks that draw control maps: found in the host's folders, and loaded as the host loads its own.

A network of transformers is a folder (config.json, preprocessor_config.json, model.safetensors) in
models/geometry_estimation or models/detection, or where extra_model_paths.yaml has these.
"""

import os
from collections.abc import Callable
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import folder_paths
import numpy as np
from torch import nn

from ..data.tasks.hed_network import HED_FILE, open_hed
from ..data.tasks.map_networks import PoseModel, find_kind, open_model
from ..data.tasks.person_detector import finds_people, open_detector
from .folders import list_networks

DEPTH, SEG = "geometry_estimation", "detection"
AUTO = "auto"
SUGGESTED_MODELS = {
    "depth": (
        DEPTH,
        "depth-anything/Depth-Anything-V2-Small-hf",
        "ComfyUI's own Run Depth Anything 3 and Render Depth Anything 3 draw depth, too",
    ),
    "seg": (
        SEG,
        "facebook/mask2former-swin-large-ade-semantic",
        "ComfyUI itself has SAM 3, which gives masks, but no node that colours classes",
    ),
    "pose": (
        SEG,
        "usyd-community/vitpose-base-simple",
        "ComfyUI's own SDPose Keypoint Extractor and SDPose Draw Keypoints draw poses, too",
    ),
}
"""For a kind of map without a network: the folder, a network that draws it, and what the host has."""

Draw = Callable[[np.ndarray], np.ndarray]


def list_map_models() -> dict[str, Path]:
    """Lists networks in the host's folders, by the names that the node offers."""
    models: dict[str, Path] = {}
    for folder in (DEPTH, SEG):
        if folder not in folder_paths.folder_names_and_paths:  # older hosts
            folder_paths.add_model_folder_path(folder, os.path.join(folder_paths.models_dir, folder))
        files = [name for name in folder_paths.get_filename_list(folder) if Path(name).name == HED_FILE]
        networks = {Path(name).as_posix(): Path(folder_paths.get_full_path(folder, name) or "") for name in files}
        for name, path in {**networks, **list_networks(folder)}.items():
            models.setdefault(name, path)
    return models


def find_map_model(kind: str, model: str) -> Path:
    """Finds the file or folder of the chosen network, or for auto of the first that draws the kind."""
    models = list_map_models()
    if model in models:
        return models[model]
    if model != AUTO:
        raise ValueError(f"There is no {model} among the models any more, expected one of the list: choose again.")
    for path in models.values():
        if path.is_dir() and find_kind(path) == kind:
            return path
    folder, name, host = SUGGESTED_MODELS[kind]
    raise ValueError(
        f"There is no {kind} model in models/{folder}, expected a folder of transformers such as {name.split('/')[1]} "
        f"(config.json, preprocessor_config.json, model.safetensors): put https://huggingface.co/{name} there; {host}."
    )


def find_detector() -> Path | None:
    """Finds the first folder of a model that finds people, for poses."""
    return next((path for path in list_map_models().values() if path.is_dir() and finds_people(path)), None)


def read_map_stamps(kind: str, model: str) -> tuple[tuple[str, int], ...]:
    """Returns a value that changes when files do of a model that draws a map."""
    paths = [find_map_model(kind, model), find_detector() if kind == PoseModel.kind else None]
    return tuple(read_model_stamp(path) for path in paths if path)


def read_model_stamp(path: Path) -> tuple[str, int]:
    """Returns a value that changes when the model's files do."""
    files = path.iterdir() if path.is_dir() else [path]
    return str(path), max(file.stat().st_mtime_ns for file in files)


def open_map_model(kind: str, model: str) -> Draw:
    """Opens the chosen network, loaded, as a function from picture to map."""
    path = find_map_model(kind, model)
    network = open_model(path) if path.is_dir() else open_hed(path)
    if network.kind != kind:
        raise ValueError(f"{model} draws {network.kind}, expected a model for {kind}: choose another, or auto.")
    if isinstance(network, PoseModel) and (detector := find_detector()):
        network.detector = open_detector(detector)
    patcher = load_network(network)
    return lambda picture: patcher.model(picture)  # holds the patcher, as the host does not


def load_network(network: nn.Module):
    """Loads a network as the host loads its own: it makes room, and may move the network out again."""
    cls = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    patcher = cls(
        network,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    comfy.model_management.load_models_gpu([patcher])
    return patcher
