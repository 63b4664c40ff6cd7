"""Encoders of a stage's features: the VAE, or a DINOv2 in the host's models/clip_vision."""

from pathlib import Path

from ..data.model_folder import read_config
from .folders import list_networks

VAE = "VAE"
FOLDER = "clip_vision"
HOME = "https://huggingface.co/facebook/dinov2-with-registers-base"


def list_encoders() -> dict[str, Path]:
    return {name: folder for name, folder in list_networks(FOLDER).items() if is_dinov2(folder)}


def is_dinov2(folder: Path) -> bool:
    try:
        return str(read_config(folder)["architecture"]).startswith("Dinov2")
    except ValueError:
        return False


def encoder_path(name: str) -> str:
    """The encoder as a recipe names it (curriculum.py): a folder, or nothing for the VAE."""
    if name == VAE:
        return ""
    if folder := list_encoders().get(name):
        return str(folder)
    raise ValueError(
        f"There is no {name} in models/{FOLDER}, expected a folder of DINOv2 (config.json, preprocessor_config.json, "
        f"model.safetensors): put {HOME} there, or choose {VAE}."
    )
