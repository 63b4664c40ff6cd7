"""Steps, guidance and scheduler of every base, as a note in its templates."""

from cologen.training.from_scratch.evaluate import CFG, STEPS

TITLE = "## Steps, guidance, scheduler\n\n"
BUILT_IN = f"The built-in set: {STEPS} steps, cfg {CFG:g}, *euler* and *simple*. With these it was measured."
FLUX1 = (
    "FLUX.1-dev: 20 to 28 steps, *FluxGuidance* 3.5, cfg 1, *euler* with *simple* or *beta*.\n\nFill: guidance 30. Kontext: 2.5. "
    "schnell: 4 steps, and it knows no guidance."
)
FLUX2 = (
    "klein 4B, 9B and 9B-KV: 4 steps, cfg 1. klein base: 50 steps, cfg 4 and a negative prompt, which may be empty. dev: 50 "
    "steps, *FluxGuidance* 4, cfg 1.\n\nAll of them: *euler* and *Flux2Scheduler*, which wants the picture's size."
)
CHROMA = (
    "Chroma: 26 to 40 steps, cfg 3 to 4, *euler* with *beta*. It knows no guidance: what is to be avoided goes into the "
    "negative prompt."
)
RECIPES = {"sticker": BUILT_IN, "toy": BUILT_IN, "flux_dev": FLUX1, "flux2_klein": FLUX2, "chroma": CHROMA}
"""How templates of a base are named -> its recipe."""


def find_recipe(template: str) -> str:
    return TITLE + next(text for base, text in RECIPES.items() if template.startswith(base))
