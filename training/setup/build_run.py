"""What a run in the terminal is made of: opens the FLUX, the encoders and the datasets that a recipe names."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from ...prw.embedded_host import EmbeddedHost
from ...prw.files.validate import build, shorten
from ...prw.flux.checkpoint import load_flux
from ...prw.flux.families import Flux, find_model_family
from ..checkpoint.checkpoints import TrainingError
from ..checkpoint.run_folder import DATASETS_FOLDER
from ..data.encoded.cached import load_empty_prompt
from ..data.encoded.dataset import EncodedDataset
from ..encoders.families import ENCODERS, open_encoders
from ..encoders.from_files import FileEncoders
from ..encoders.protocol import Encoders
from ..forward import EMBEDDED_CHECKPOINTING
from ..from_scratch.learner import Progress
from ..from_scratch.make import WorldTraining
from ..from_scratch.recipe import ScratchRecipe, shorten_recipe
from ..from_scratch.store import open_models
from ..recipes.curriculum import Curriculum
from .check_objects import check_objects
from .stage_data import CacheReference, StageDatasets, plan_stage_data
from .worlds import WORLDS

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class RunInputs(NamedTuple):
    host: EmbeddedHost
    encoders: Encoders
    datasets: Mapping[str, EncodedDataset]
    """By stage."""
    base_name: str
    checkpointing: dict
    """What makes the host give up activations."""


def open_run_inputs(
    curriculum: Curriculum, out: Path, device: str, seed: int, share: float, progress: Progress
) -> RunInputs:
    """Opens what the recipe's base needs; `share` is the budget's, which also shortens what a base from nothing trains."""
    if curriculum.base in WORLDS:
        check_objects(curriculum)
        return open_world(curriculum, out, device, seed, share, progress)
    if not Path(curriculum.base).is_file():
        found = f"is {shorten(curriculum.base)}, which is no file" if curriculum.base else "is not named"
        raise TrainingError(
            f'The recipe\'s base {found}, expected "toy" or "world", or a FLUX\'s file and a table [encoders]: set base to '
            f"where the file lies (names such as klein-base-4b serve --estimate alone), or train in ComfyUI, with the "
            f"node CoLoGen Train Curriculum."
        )
    check_objects(curriculum)
    return open_flux(curriculum, out, device, seed, progress)


def open_flux(curriculum: Curriculum, out: Path, device: str, seed: int, progress: Progress) -> RunInputs:
    """Opens a FLUX from its file, on our own modules. Where all data is cached, text encoders are not loaded."""
    dtype = DTYPES[curriculum.settings.precision]
    encoders = open_encoders(curriculum.encoders, device)
    data = plan_stage_data(curriculum, 0, encoders, seed)
    caches = [part.cache for parts in data.values() for part in parts if isinstance(part, CacheReference)]
    if caches:
        encoders.empty = load_empty_prompt(caches[0])
    flux = load_flux(
        curriculum.base, dtype
    )  # not on the device yet, where it may not fit as a whole (base/placement.py)
    check_encoders(encoders, flux, Path(curriculum.base).name)
    datasets = StageDatasets(data, out / DATASETS_FOLDER, progress)
    return RunInputs(EmbeddedHost(flux, dtype), encoders, datasets, Path(curriculum.base).stem, EMBEDDED_CHECKPOINTING)


def check_encoders(encoders: FileEncoders, flux: Flux, base: str) -> None:
    """Raises if a FLUX reads other encoders' latents or text."""
    family = find_model_family(flux)
    if encoders.family is not family:
        raise TrainingError(
            f"{base} is a {family.label}, the table [encoders] names those of {encoders.family.label}, expected "
            f"{', '.join(ENCODERS[family.name].encoders.needed)}: set them."
        )
    if encoders.context_width != flux.params.context_in_dim:
        raise TrainingError(
            f"{base} reads text of width {flux.params.context_in_dim}, the text encoder in the table [encoders] gives "
            f"{encoders.context_width}: set the one that belongs to the base; FLUX.2 klein 4B's is Qwen3-4B, 9B's is Qwen3-8B. "
            f"FLUX.2-dev's is opened in ComfyUI alone."
        )


def open_world(
    curriculum: Curriculum, out: Path, device: str, seed: int, share: float, progress: Progress
) -> RunInputs:
    """Opens the models of a world, those that ship or, with rebuild, new ones trained in `out`."""
    world, dtype = WORLDS[curriculum.base], DTYPES[curriculum.settings.precision]
    recipe = shorten_recipe(build(ScratchRecipe, curriculum.own_base, world.name), share)
    if recipe.rebuild:
        flux, encoders = WorldTraining(world, recipe, out / "base", seed, device, progress).make_models()
    else:
        flux, encoders = open_models(world, device=device)
    data = plan_stage_data(curriculum, recipe.examples, encoders, seed)
    datasets = StageDatasets(data, out / DATASETS_FOLDER, progress)
    return RunInputs(EmbeddedHost(flux.to(dtype), dtype), encoders, datasets, world.base, EMBEDDED_CHECKPOINTING)
