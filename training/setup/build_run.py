"""Where a headless run gets its FLUX, its encoders and its lessons from."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from ...prw.attachment import Host
from ...prw.embedded_host import EmbeddedHost
from ...prw.files.validate import build, short
from ...prw.flux.checkpoint import load_flux
from ..checkpoint.checkpoints import TrainingError
from ..data.encoded.cached import load_empty_prompt
from ..data.encoded.dataset import EncodedDataset
from ..encoders.protocol import Encoders
from ..forward import EMBEDDED_CHECKPOINTING
from ..recipes.curriculum import Curriculum
from .stage_data import EncodedInCache, StageDatasets, find_stage_data

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class World(NamedTuple):
    host: Host
    encoders: Encoders
    lessons: Mapping[str, EncodedDataset]
    """By stage."""
    name: str
    spare: dict


def open_world(
    curriculum: Curriculum, out: Path, device: str, seed: int, share: float, progress: Callable[[str, int, int], None]
) -> World:
    """`share` is the budget's: it also shortens what the toy world trains before its stages."""
    if curriculum.base == "toy":
        return toy_world(curriculum, out, device, seed, share, progress)
    if not Path(curriculum.base).is_file():
        found = f"is {short(curriculum.base)}, which is no file" if curriculum.base else "is not named"
        raise TrainingError(
            f"The recipe's base {found}, expected \"toy\", or FLUX.1's file and a table [encoders]: set base; or train "
            f"from ComfyUI, with the node CoLoGen Train Curriculum."
        )
    return flux_world(curriculum, out, device, seed, progress)


def flux_world(curriculum: Curriculum, out: Path, device: str, seed: int, progress: Callable) -> World:
    """FLUX.1 from its file, on our own modules. Where all data is cached, T5 and CLIP need not be loaded."""
    from ..encoders.flux1 import open_encoders

    dtype = DTYPES[curriculum.settings.precision]
    encoders = open_encoders(curriculum.encoders, device)
    parts = find_stage_data(curriculum, 0, encoders, seed)
    caches = [part.cache for some in parts.values() for part in some if isinstance(part, EncodedInCache)]
    if caches:
        encoders.empty = load_empty_prompt(caches[0])
    flux = load_flux(curriculum.base, dtype)  # not on the device yet, where it may not fit as a whole (base/resting.py)
    lessons = StageDatasets(parts, out / "lessons", progress)
    return World(EmbeddedHost(flux, dtype), encoders, lessons, Path(curriculum.base).stem, EMBEDDED_CHECKPOINTING)


def toy_world(curriculum, out, device, seed, share, progress) -> World:
    from ..toy.make import ToyRecipe, make_set, shortened
    from ..toy.store import NAME, SHIPPED, open_set

    recipe = shortened(build(ToyRecipe, curriculum.toy, "toy"), share)
    if recipe.rebuild:
        make_set(recipe, out / "base", seed, progress)
    flux, encoders = open_set(out / "base" if recipe.rebuild else SHIPPED, device)
    flux = flux.to(DTYPES[curriculum.settings.precision])
    lessons = StageDatasets(find_stage_data(curriculum, recipe.examples, encoders, seed), out / "lessons", progress)
    return World(
        EmbeddedHost(flux, DTYPES[curriculum.settings.precision]), encoders, lessons, NAME, EMBEDDED_CHECKPOINTING
    )
