"""Where a headless run gets its FLUX, its encoders and its lessons from."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from ..prw.attachment import Host
from ..prw.embedded import EmbeddedHost
from ..prw.strict import build, short
from .checkpoints import TrainingError
from .curriculum import Curriculum
from .forward import SPARE_EMBEDDED
from .kept_lessons import KeptLessons, parts_of
from .lessons import Codec, Shelf

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class World(NamedTuple):
    host: Host
    codec: Codec
    lessons: Mapping[str, Shelf]
    """By stage."""
    name: str
    spare: dict


def open_world(
    curriculum: Curriculum, out: Path, device: str, seed: int, share: float, progress: Callable[[str, int, int], None]
) -> World:
    """`share` is the budget's: it also shortens what the toy world trains before its stages."""
    if curriculum.base != "toy":
        raise TrainingError(
            f'The recipe\'s base is {short(curriculum.base) or "not named"}, expected base = "toy": FLUX.1 itself is '
            f"trained from ComfyUI, with the node CoLoGen Train Curriculum, because its text encoders live there."
        )
    return toy_world(curriculum, out, device, seed, share, progress)


def toy_world(curriculum, out, device, seed, share, progress) -> World:
    from .toy.make import ToyRecipe, make_set, shortened
    from .toy.store import NAME, SHIPPED, open_set

    recipe = shortened(build(ToyRecipe, curriculum.toy, "toy"), share)
    if recipe.rebuild:
        make_set(recipe, out / "base", seed, progress)
    flux, codec = open_set(out / "base" if recipe.rebuild else SHIPPED, device)
    flux = flux.to(DTYPES[curriculum.settings.precision])
    lessons = KeptLessons(parts_of(curriculum, recipe.examples, codec, seed), out / "lessons", progress)
    return World(EmbeddedHost(flux, DTYPES[curriculum.settings.precision]), codec, lessons, NAME, SPARE_EMBEDDED)
