"""What each template's thumbnail shows and says: a card a template."""

from typing import NamedTuple


class Card(NamedTuple):
    title: str
    words: str
    tiles: tuple[tuple[str, str], ...]
    """From what was given to what came: a workflow of the built-in set, and the title of the node that shows it."""


EDIT = (("toy_edit", "Given"), ("toy_edit", "Drawn"))
INPAINT = (("toy_inpaint", "Given"), ("toy_inpaint", "Drawn"))
CONTROL = (("toy_control", "The map"), ("toy_control", "Drawn"))
SUBJECT = (("toy_subject", "Given"), ("toy_subject", "Drawn"))
GROUND = (("toy_edit", "Given"), ("toy_ground", "Found"))
BOTH = (
    ("toy_control_and_subject", "The map"),
    ("toy_control_and_subject", "The thing"),
    ("toy_control_and_subject", "Drawn"),
)
LARGE = (("toy_inpaint_full_resolution", "The crop"), ("toy_inpaint_full_resolution", "The whole, filled"))
HOLE_AND_THING = tuple(("toy_inpaint_with_subject", title) for title in ("The hole", "The thing", "Drawn"))

STICKER_EDIT = (("sticker_edit", "Given"), ("sticker_edit", "Drawn"))

WORDS = {
    "sticker_inpaint": Card(
        "Inpaint stickers",
        "Name what shall fill the hole",
        (("sticker_inpaint", "Given"), ("sticker_inpaint", "Drawn")),
    ),
    "sticker_ground": Card(
        "Find a sticker", "By name, or by what it is", (("sticker_edit", "Given"), ("sticker_ground", "Found"))
    ),
    "sticker_control": Card(
        "Edges to stickers",
        "Follow the edges, choose names and colours",
        (("sticker_control", "The map"), ("sticker_control", "Drawn")),
    ),
    "sticker_subject": Card(
        "A sticker in a new picture",
        "A thing without a name, in another place",
        (("sticker_subject", "Given"), ("sticker_subject", "Drawn")),
    ),
    "sticker_edit": Card("Edit stickers", "“replace the fox with a cat”", STICKER_EDIT),
    "toy_inpaint": Card("Inpaint", "Fill a hole as the prompt says", INPAINT),
    "toy_ground": Card("Find it", "Name a thing, get its mask and its box", GROUND),
    "toy_control": Card("Control", "Follow the edges, choose the colours", CONTROL),
    "toy_subject": Card("Subject", "The same thing in another place", SUBJECT),
    "toy_edit": Card("Edit", "“turn the green thing at the bottom right into a circle”", EDIT),
    "toy_inpaint_with_subject": Card("A thing into a hole", "One picture's thing, another one's hole", HOLE_AND_THING),
    "toy_control_and_subject": Card("Two sources", "A map for everything, a thing for one corner", BOTH),
    "toy_ground_then_inpaint": Card(
        "Find it, then change it",
        "“the red square” becomes “a yellow circle”",
        (("toy_ground_then_inpaint", "Given"), ("toy_ground_then_inpaint", "Drawn")),
    ),
    "toy_routing": Card(
        "Concept or place", "One edit, five leans of the router", (("toy_routing", "From what to where"),)
    ),
    "toy_best_of": Card(
        "Best of six",
        "Six seeds, and the one that is nearest",
        (("toy_best_of", "Reference"), ("toy_best_of", "The best")),
    ),
    "toy_schedule": Card(
        "One source, then another",
        "The map lays out, the thing takes over",
        tuple(("toy_schedule", title) for title in ("The map", "The thing", "Drawn")),
    ),
    "toy_dual_branch": Card(
        "Dual Branch",
        "A subject in another prompt's scene",
        (("toy_dual_branch", "Given"), ("toy_dual_branch", "Drawn")),
    ),
    "toy_personal_guider": Card(
        "Personal Guider",
        "Two prompts share the steps",
        (("toy_personal_guider", "Given"), ("toy_personal_guider", "Drawn")),
    ),
    "toy_inpaint_full_resolution": Card("A hole of a large picture", "Cut out, drawn, put back", LARGE),
    "toy_train_stage": Card("Train one expert", "From pairs like this one to an expert of your own", EDIT),
    "toy_train_own_expert": Card("A sixth expert", "Trained beside the five that ship", SUBJECT),
    "toy_train_features": Card("Train with features", "An expert that also says what it sees", SUBJECT),
    "toy_train_curriculum": Card("Train a curriculum", "One stage after the other, then measured", EDIT),
    "toy_train_subject": Card("Your own subject", "Four photos, then any scene", SUBJECT),
    "flux_dev_inpaint": Card("Inpaint · FLUX.1-dev", "Paint a hole, say what shall be there", INPAINT),
    "flux_dev_ground": Card("Find it · FLUX.1-dev", "Name a thing, get its mask and its box", GROUND),
    "flux_dev_control": Card("Control · FLUX.1-dev", "Edges say where, words say what", CONTROL),
    "flux_dev_subject": Card("Subject · FLUX.1-dev", "Someone or something in a new picture", SUBJECT),
    "flux_dev_edit": Card("Edit · FLUX.1-dev", "An instruction changes one thing", EDIT),
    "flux_dev_control_and_subject": Card(
        "Control and subject · FLUX.1-dev", "Two of EasyControl's experts at once", BOTH
    ),
    "flux_dev_personal": Card(
        "A subject in its scene · FLUX.1-dev",
        "A second branch lends the scene",
        (("toy_dual_branch", "Given"), ("toy_dual_branch", "Drawn")),
    ),
    "flux_dev_inpaint_full_resolution": Card("Crop and stitch · FLUX.1-dev", "A hole of a picture of any size", LARGE),
    "flux_dev_outpaint": Card("Outpaint · FLUX.1-dev", "A picture goes on beyond its edge", LARGE[1:]),
    "flux_dev_train_subject": Card("Your own subject · FLUX.1-dev", "A few photos, then any scene", SUBJECT),
    "flux2_klein_edit": Card("Edit · FLUX.2 klein", "Four steps, no experts needed", EDIT),
    "flux2_klein_two_references": Card("Two references · FLUX.2 klein", "Each in its own rectangle", BOTH),
    "flux2_klein_control": Card("Control · FLUX.2 klein", "Edges say where, words say what", CONTROL),
    "flux2_klein_upscale": Card("Upscale · FLUX.2 klein", "A small picture drawn anew, large", EDIT[:1]),
    "flux2_klein_inpaint": Card("Inpaint · FLUX.2 klein", "Paint where, say what shall change", INPAINT),
    "flux2_klein_brightness": Card("How bright · FLUX.2 klein", "A number that the model reads", EDIT[:1]),
    "flux2_klein_train_expert": Card("Train an expert · FLUX.2 klein", "Train on base, draw in four steps", EDIT),
    "chroma_control": Card("Control · Chroma", "FLUX.1's expert, lent", CONTROL),
}
