"""Shapes of published FLUX models, by the names that the terminal takes where no file is at hand."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from ...prw.base_model import Base
from ...prw.files.errors import FileError
from ...prw.flux.checkpoint import load_flux
from ...prw.flux.families import FLUX1, FLUX2, Family, Flux
from ...prw.flux.flux1 import FluxParams
from ...prw.flux.flux2 import Flux2Params
from .random_models import TINY

KLEIN_9B = dict(hidden_size=4096, num_heads=32, depth=8, depth_single_blocks=24, context_in_dim=12288)


class KnownModel(NamedTuple):
    label: str
    """What a bank calls it."""
    family: Family
    params: FluxParams | Flux2Params

    def build(self) -> Flux:
        """Builds the model without its numbers."""
        assert self.family.embedded is not None
        with torch.device("meta"):
            return self.family.embedded.model(self.params)


KNOWN_MODELS = {
    "flux1": KnownModel("FLUX.1-dev", FLUX1, FluxParams()),
    "flux1-fill": KnownModel("FLUX.1-Fill-dev", FLUX1, FluxParams(in_channels=384)),
    "klein-4b": KnownModel("FLUX.2-klein-4B", FLUX2, Flux2Params()),
    "klein-base-4b": KnownModel("FLUX.2-klein-base-4B", FLUX2, Flux2Params()),
    "klein-9b": KnownModel("FLUX.2-klein-9B", FLUX2, Flux2Params(**KLEIN_9B)),
    "klein-base-9b": KnownModel("FLUX.2-klein-base-9B", FLUX2, Flux2Params(**KLEIN_9B)),
    "klein-9b-kv": KnownModel("FLUX.2-klein-9B-KV", FLUX2, Flux2Params(**KLEIN_9B)),
    "tiny": KnownModel("tiny", FLUX1, FluxParams(**TINY)),
}


def open_shape(name: str) -> Flux:
    """Builds a known model, or opens a FLUX file, whose weights are memory-mapped."""
    if name in KNOWN_MODELS:
        return KNOWN_MODELS[name].build()
    if not Path(name).is_file():
        known = ", ".join(KNOWN_MODELS)
        raise FileError(f"There is no base {name or 'named'}, expected {known} or a FLUX file: check the name.")
    return load_flux(name)


def find_base(name: str) -> Base:
    """Finds what a bank says of a known model, or of a FLUX file."""
    flux = open_shape(name)
    if name not in KNOWN_MODELS:
        return Base.of(flux).with_probe(flux, Path(name).stem)
    return replace(Base.of(flux), name=KNOWN_MODELS[name].label)
