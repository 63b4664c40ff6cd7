"""From a graph's inputs to what training takes: recipes, settings and encoders."""

from dataclasses import replace
from typing import Any

from ...training.comfyui.feature_encoders import VAE, encoder_path
from ...training.recipes.curriculum import Curriculum, Settings, Stage, list_recipes, load_curriculum, parse_curriculum


def read_recipe(text: str) -> Curriculum:
    """Reads a built-in recipe by its name, or a recipe's text; never a path, nor one within:
    a graph may come from anywhere."""
    name = text.strip()
    curriculum = load_curriculum(name) if name in list_recipes() else parse_curriculum(text, "The recipe")
    settings = replace(curriculum.settings, encoder=encoder_path(curriculum.settings.encoder or VAE))
    return replace(curriculum, settings=settings, encoders={})  # the graph's own encode


def sample_at_end(settings: Settings, iterations: int) -> Settings:
    """Sets sampling to the end only where sample_every is 0: the end is due whenever anything is."""
    return settings if settings.sample_every else replace(settings, sample_every=iterations)


def check_connected(vae, clip) -> None:
    """Raises if a node has no VAE or no CLIP: loaders may give none."""
    if vae is None or clip is None:
        raise ValueError(
            "There is no VAE or no CLIP, expected those of your FLUX: connect those of the stock loaders or Load FLUX."
        )


def select_fields(cls: type, knobs: dict[str, Any]) -> dict[str, Any]:
    """Selects the knobs that are fields of this dataclass; those of Settings are no stage's own."""
    taken = Settings.__dataclass_fields__ if cls is Stage else ()
    return {name: value for name, value in knobs.items() if name in cls.__dataclass_fields__ and name not in taken}
