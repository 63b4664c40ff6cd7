"""Encoders of a stage's features: the VAE, or a vision model (DINOv2, SigLIP, CLIP) in the host's models/clip_vision."""

from pathlib import Path

from ..data.model_folder import read_config
from .folders import list_networks

VAE = "VAE"
FOLDER = "clip_vision"
ARCHITECTURES = ("Dinov2", "Siglip", "CLIP")
"""How the names of vision models' classes begin that answer with a token a patch."""
HOME = "https://huggingface.co/facebook/dinov2-with-registers-base"


def list_encoders() -> dict[str, Path]:
    return {name: folder for name, folder in list_networks(FOLDER).items() if is_vision_model(folder)}


def is_vision_model(folder: Path) -> bool:
    try:
        return str(read_config(folder)["architecture"]).startswith(ARCHITECTURES)
    except ValueError:
        return False


def encoder_path(name: str) -> str:
    """Gives the encoder as a recipe names it (curriculum.py): a folder, or nothing for the VAE."""
    if name == VAE:
        return ""
    if folder := list_encoders().get(name):
        return str(folder)
    raise ValueError(
        f"There is no {name} in models/{FOLDER}, expected a folder of DINOv2, SigLIP or CLIP (config.json, preprocessor_config.json, "
        f"model.safetensors): put {HOME} there, or choose {VAE}."
    )
