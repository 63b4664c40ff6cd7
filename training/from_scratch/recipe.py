"""The numbers by which a world's models are made from nothing; stages and experts are the curriculum's."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ...prw.files.validate import check_choice, check_range
from ...prw.flux.flux1 import FluxParams
from .learner import LearnerPlan
from .world import World

PRECISIONS = ("fp32", "bf16")
HEAD = 128
"""Width of an attention head of FLUX."""


@dataclass(frozen=True)
class ScratchRecipe:
    """Sets sizes, lengths and rates of a world's models, and how often sheets are drawn."""

    rebuild: bool = False
    """Train the base from nothing; else the one that ships is used."""
    examples: int = 6000
    """Samples of each task."""
    text_iterations: int = 1500
    text_batch: int = 128
    text_rate: float = 2e-3
    decoder_iterations: int = 3000
    decoder_batch: int = 16
    decoder_rate: float = 1e-3
    decoder_precision: str = "fp32"
    """In which the decoder is trained, as FLUX's."""
    flux_iterations: int = 3000
    flux_batch: int = 64
    flux_rate: float = 1e-3
    flux_shift: float = 1.0
    """Above 1: more training near pure noise."""
    flux_diptychs: float = 0.25
    """Share of FLUX's iterations with diptychs."""
    flux_references: float = 0.0
    """Share of FLUX's iterations that show it a reference, which it reads with its own weights (prw/base_weights.py)."""
    flux_width: int = 256
    """A multiple of a head's 128."""
    flux_double: int = 2
    flux_single: int = 4
    """Its blocks of two streams, and of one."""
    flux_precision: str = "fp32"
    """In which FLUX is trained: "bf16" by autocast, its weights stay fp32."""
    drawers: int = 0
    """Processes that draw ahead of FLUX's training; 0: it draws by itself."""
    sheet_minutes: float = 0.0
    """Between two sheets of what FLUX draws so far, in base/sheets; 0: none."""

    def __post_init__(self):
        for name in ("examples", "text_iterations", "decoder_iterations", "flux_iterations"):
            check_range(name, getattr(self, name), 2, 10**7)
        for name in ("text_batch", "decoder_batch", "flux_batch"):
            check_range(name, getattr(self, name), 1, 10**5)
        for name in ("text_rate", "decoder_rate", "flux_rate"):
            check_range(name, getattr(self, name), 0, 1000)
        check_range("flux_shift", self.flux_shift, 0.01, 100)
        check_range("flux_diptychs", self.flux_diptychs, 0, 1)
        check_range("flux_references", self.flux_references, 0, 1 - self.flux_diptychs)
        check_range("flux_width", self.flux_width, HEAD, 16384)
        if self.flux_width % HEAD:
            raise ValueError(f"flux_width is {self.flux_width}, expected a multiple of {HEAD}")
        for name, high in (("flux_double", 100), ("flux_single", 100), ("drawers", 256)):
            check_range(name, getattr(self, name), 0, high)
        check_range("sheet_minutes", self.sheet_minutes, 0, 10**6)
        for name in ("decoder_precision", "flux_precision"):
            check_choice(name, getattr(self, name), PRECISIONS)

    def plan(self, name: str) -> LearnerPlan:
        return LearnerPlan(*(getattr(self, f"{name}_{part}") for part in ("iterations", "batch", "rate")))

    def shape(self, world: World) -> FluxParams:
        return FluxParams(
            hidden_size=self.flux_width,
            num_heads=self.flux_width // HEAD,
            depth=self.flux_double,
            depth_single_blocks=self.flux_single,
            context_in_dim=world.language.width,
            vec_in_dim=world.language.pooled,
            guidance_embed=False,
        )


LATER_FIELDS = (
    "flux_references", "flux_diptychs", "flux_width", "flux_double", "flux_single", "flux_precision", "decoder_precision",
)  # fmt: skip
"""Fields that recipes have only lately: bases from before them go on."""
FREE_FIELDS = ("rebuild", "examples", "drawers", "sheet_minutes")
"""Fields that change nothing of the models."""


def list_deciding(recipe: ScratchRecipe) -> dict[str, Any]:
    """Lists what decides the models; a later field at its default is None, as it is in records from before it."""
    defaults = {field.name: field.default for field in fields(recipe) if field.name in LATER_FIELDS}
    values = {name: value for name, value in asdict(recipe).items() if name not in FREE_FIELDS}
    return {name: None if defaults.get(name) == value else value for name, value in values.items()}


def shorten_recipe(recipe: ScratchRecipe, share: float) -> ScratchRecipe:
    """Leaves a budget's share of everything, examples included."""

    def shorten(count: int) -> int:
        return max(2, round(count * share))

    return replace(
        recipe,
        examples=shorten(recipe.examples),
        text_iterations=shorten(recipe.text_iterations),
        decoder_iterations=shorten(recipe.decoder_iterations),
        flux_iterations=shorten(recipe.flux_iterations),
    )
