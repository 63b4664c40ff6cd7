"""The FLUX families: a file and a row each."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from . import flux1, flux2

Flux = flux1.Flux | flux2.Flux2


class Family(NamedTuple):
    """What a checkpoint of a family looks like, and the model that it belongs to."""

    name: str
    label: str
    """What people call it."""
    marks: tuple[str, ...]
    """Keys that its files have, and no other family's all together."""
    read: tuple[str, ...]
    """Matrices whose shapes tell the model's."""
    read_params: Callable[[Mapping[str, tuple[int, ...]]], Any]
    model: Callable[[Any], Flux]


FLUX1 = Family("flux1", "FLUX.1", flux1.MARKS, flux1.READ, flux1.read_params, flux1.Flux)
FLUX2 = Family("flux2", "FLUX.2", flux2.MARKS, flux2.READ, flux2.read_params, flux2.Flux2)
FAMILIES = {family.name: family for family in (FLUX1, FLUX2)}
