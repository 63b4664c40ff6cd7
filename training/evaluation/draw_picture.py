"""A picture by one call of a program: of a source, a prompt, a task and a mode, on our own FLUX and without ComfyUI."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from ...prw.bank.bank import Bank
from ...prw.embedded_host import EmbeddedHost
from ...prw.files.validate import check_choice
from ...prw.flux.checkpoint import load_flux
from ...prw.source import MODES
from ...prw.tasks import TASKS
from ..encoders.families import open_encoders
from .case import fit_area, resize
from .image_generator import GenerationSettings, ImageGenerator

Mode = Literal["concept", "balanced", "localisation"]
MAX_SIDE = 1024
"""Pictures have the source's area, but no more than that of a square of this side."""


def open_generator(
    flux: Path,
    bank: Path,
    encoders: Mapping[str, Any],
    settings: GenerationSettings | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> ImageGenerator:
    """Opens a FLUX's file with its experts; `encoders` is a recipe's table [encoders]."""
    host = EmbeddedHost(load_flux(flux, dtype, device), dtype)
    return ImageGenerator(host, open_encoders(encoders, device), Bank.open(bank), settings or GenerationSettings())


def draw_picture(
    generator: ImageGenerator,
    source: Image.Image,
    prompt: str,
    task: str,
    mode: Mode = "balanced",
    size: tuple[int, int] | None = None,
    seed: int = 0,
) -> Image.Image:
    """Draws what the prompt asks of the source; `size` is (width, height), the source's own if not given."""
    check_choice("task", task, tuple(TASKS))
    check_choice("mode", mode, tuple(MODES))
    pixels = np.asarray(source.convert("RGB"))
    wanted = pixels.shape[:2] if size is None else size[::-1]
    steered = replace(generator, routing=replace(generator.routing, lean=MODES[mode]))
    return Image.fromarray(steered(task, resize(pixels, limit_area(pixels.shape)), prompt, limit_area(wanted), seed))


def limit_area(shape: tuple[int, ...]) -> tuple[int, int]:
    """Gives height and width on FLUX's grid of a picture's own area, or of MAX_SIDE's."""
    return fit_area(shape, min(MAX_SIDE, math.sqrt(shape[0] * shape[1])))
