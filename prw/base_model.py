"""The base model: what a bank must agree on with the FLUX that it is used with."""

import math
from dataclasses import dataclass, field, replace

import torch

from .files.plain_data import OMIT_DEFAULT
from .files.validate import check_choice, check_range, shorten
from .flux.blocks import FluxModel
from .flux.families import FAMILIES, FLUX1, find_model_family

PROBE_LENGTH = 32


@dataclass(frozen=True)
class Base:
    """The shape of a FLUX, and a probe of its weights."""

    in_channels: int = 64
    hidden_size: int = 3072
    double_blocks: int = 19
    single_blocks: int = 38
    guidance: bool = True
    """Whether it is distilled with guidance (dev) or not (schnell)."""
    name: str = ""
    """What a person calls it, such as "FLUX.1-dev"."""
    probe: tuple[float, ...] = ()
    """Empty, or what `compute_probe` gave when the bank was trained."""
    family: str = field(default=FLUX1.name, metadata=OMIT_DEFAULT)
    """A row of FAMILIES."""

    def __post_init__(self):
        check_choice("family", self.family, tuple(FAMILIES))
        for name in ("in_channels", "hidden_size"):
            check_range(name, getattr(self, name), 1, 1 << 16)
        for name in ("double_blocks", "single_blocks"):
            check_range(name, getattr(self, name), 0, 1000)
        if len(self.probe) not in (0, PROBE_LENGTH) or not all(abs(value) < 1e6 for value in self.probe):
            raise ValueError(f"probe is not made of {PROBE_LENGTH} numbers")

    @classmethod
    def of(cls, flux: FluxModel) -> "Base":
        """Reads the shape off a model."""
        family = find_model_family(flux)
        return cls(
            in_channels=flux.in_channels,
            hidden_size=flux.params.hidden_size,
            double_blocks=len(flux.double_blocks),
            single_blocks=len(flux.single_blocks),
            guidance=family.reads_guidance(flux.params),
            family=family.name,
        )

    def with_probe(self, flux: FluxModel, name: str = "") -> "Base":
        """Returns the same base with a name and the model's probe."""
        return replace(self, name=name, probe=compute_probe(flux))

    def count(self, where: str = "all") -> int:
        """Counts how many blocks "all", "double" or "single" stands for."""
        return sum(count for kind, count in self._counts().items() if where in ("all", kind))

    def blocks(self, where: str = "all") -> list[str]:
        """Names of blocks, in order."""
        counts = self._counts().items()
        return [f"{kind}_blocks.{i}" for kind, count in counts if where in ("all", kind) for i in range(count)]

    def _counts(self) -> dict[str, int]:
        return {"double": self.double_blocks, "single": self.single_blocks}

    def describe_incompatibility(self, flux: "Base") -> str:
        """Says why experts made for this base cannot run on `flux`; "" if they can."""
        if flux.family != self.family:
            made_for, found = (FAMILIES[base.family].label for base in (self, flux))
            return f"The model is a {found}, the bank was made for {made_for}: load that, or another bank."
        for name in ("hidden_size", "double_blocks", "single_blocks"):
            found, expected = getattr(flux, name), getattr(self, name)
            if found != expected:
                called = shorten(self.name)
                made_for, load = f" ({called})" if called else "", called or "the FLUX that it was trained on"
                return f"The model has {name} {found}, the bank was made for {expected}{made_for}: load {load}, or another bank."
        return ""

    def describe_difference(self, flux: "Base") -> str:
        """Says why experts made for this base may look weak on `flux`; "" if no reason is found."""
        if self.in_channels != flux.in_channels or self.guidance != flux.guidance:
            return f"The bank was made for a FLUX of another kind ({shorten(self.name) or 'unnamed'}): pictures may be weaker."
        if self.probe and flux.probe and _distance(self.probe, flux.probe) > 0.1:
            return f"The bank was trained on other weights ({shorten(self.name) or 'unnamed'}): pictures may be weaker."
        return ""


@torch.no_grad()
def compute_probe(flux: FluxModel) -> tuple[float, ...]:
    """Computes the first numbers of the model's embedding of timestep 0.5, which tell one training from another.

    Our choice instead of a hash of weights: a layer is called, so fp8, GGUF and offloaded copies of a model
    answer like the model itself.
    """
    layer, embedding = find_model_family(flux).read_time(flux, torch.full((1,), 0.5))
    weight = next(layer.parameters(), None)
    like = torch.zeros(1) if weight is None else weight
    if like.dtype.itemsize == 1:  # fp8 is stored, not computed with
        like = torch.zeros(1, device=like.device)
    vectors = layer(embedding.to(like.device, like.dtype))
    return tuple(round(x, 6) for x in vectors.flatten()[:PROBE_LENGTH].float().tolist())


def _distance(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return math.dist(a, b) / (math.hypot(*a) + 1e-12)
