"""What a stage's features are seen by: the VAE, or a DINOv2 that the host has in models/clip_vision."""

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
    """As a recipe names it (curriculum.py)."""
    if name == VAE:
        return ""
    if found := list_encoders().get(name):
        return str(found)
    raise ValueError(
        f"There is no {name} in models/{FOLDER}, expected a folder of DINOv2 (config.json, preprocessor_config.json, "
        f"model.safetensors): put {HOME} there, or choose {VAE}."
    )
