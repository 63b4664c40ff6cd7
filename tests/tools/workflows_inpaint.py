"""Example workflows for holes of large pictures: cut out, drawn at the model's size, put back; and outpainting."""

from canvas import Canvas, Node, Output
from workflows_flux import LICENCES, Dev
from workflows_toy import Toy

HOLE, WORLD = 29, 64
"""The longer side of the toy question's hole, and of the pictures that the toy set draws."""


def draw_right_half(toy: Toy) -> tuple[Node, Output, Output]:
    """A picture twice as wide as the toy set's: what cuts its hole out, what is drawn of it, and the whole again."""
    add = toy.canvas.add
    other = toy.question("edit", "The left half")
    question = toy.question("inpaint", "The right half", 12)
    whole = add(
        "ImageStitch", "Twice as wide", image1=other["source"], image2=question["source"], direction="right",
        match_image_size=False, spacing_width=0, spacing_color="white",
    )[0]  # fmt: skip
    black = add("SolidMask", value=0.0, width=2 * WORLD, height=WORLD)[0]
    mask = add(
        "MaskComposite", "Its hole", destination=black, source=question["mask"], x=WORLD, y=0, operation="add"
    )[0]  # fmt: skip
    knobs = dict(grow=0, feather=0, context=round(WORLD / HOLE, 2), size=WORLD)
    cut = add("CoLoGenCropForInpaint", image=whole, mask=mask, **knobs)
    words = toy.words(question["prompt"])[0]
    told = toy.task("CoLoGenInpaint", words, image=cut["image"], mask=cut["mask"], grow=0)
    drawn = toy.sample(told)[0]
    return cut, drawn, add("CoLoGenStitch", stitch=cut["stitch"], drawn=drawn)[0]


def toy_full_resolution(canvas: Canvas) -> None:
    toy = Toy(canvas)
    cut, drawn, back = draw_right_half(toy)
    toy.save_image(back, "toy_inpaint_full_resolution", "The whole, filled")
    toy.preview(cut["image"], "The crop")
    toy.preview(drawn, "Drawn")
    canvas.note(
        "## A hole of a large picture\n\nThe toy set draws 64 × 64; this picture is twice as wide. *Crop for Inpaint* cuts out "
        "the hole and as much round it as `context` says, at the `size` that the model draws; *Stitch* puts the drawn hole "
        "back. Outside it every pixel stays as it was.",
    )


def cut_and_fill(dev: Dev, picture: Node, words: str, name: str, **knobs) -> None:
    """From a picture with a mask to the whole picture again."""
    add = dev.canvas.add
    cut = add("CoLoGenCropForInpaint", image=picture["IMAGE"], mask=picture["MASK"], **knobs)
    told = dev.task("CoLoGenInpaint", dev.words(words), image=cut["image"], mask=cut["mask"], grow=0)
    drawn = dev.sample(told)
    whole = add("CoLoGenStitch", stitch=cut["stitch"], drawn=drawn)[0]
    dev.save_image(whole, name)
    dev.canvas.compare(picture["IMAGE"], whole)


def full_resolution(canvas: Canvas) -> None:
    dev = Dev(canvas, "inpainting")
    picture = dev.picture("Picture: paint the hole in the mask editor")
    cut_and_fill(dev, picture, "A wooden toy boat", "inpaint_full_resolution", context=2.0)
    dev.note(
        "## Inpaint a large picture on FLUX.1-dev\n\nRight-click the picture, *Open in MaskEditor*, paint what shall be new, "
        "say what it shall be. *Crop for Inpaint* draws the hole and its surroundings at 1024 pixels, however large the "
        "picture is, and shows both; *Stitch* puts the hole back and leaves every other pixel as it was.\n\n`grow` and "
        "`feather` are set there, once: *Inpaint*'s own `grow` stays 0. For a soft brush turn *Inpaint*'s `soft` on and put "
        "*Differential Diffusion* before the sampler." + LICENCES
    )


def outpaint(canvas: Canvas) -> None:
    dev = Dev(canvas, "inpainting")
    picture = dev.picture("What shall go on")
    padded = canvas.add(
        "ImagePadForOutpaint", "How far, and where", image=picture["IMAGE"], left=0, top=0, right=256, bottom=0,
        feathering=0,
    )  # fmt: skip
    cut_and_fill(dev, padded, "A quiet landscape, photograph", "outpaint", grow=24, feather=24, context=3.0)
    dev.note(
        "## Outpaint on FLUX.1-dev\n\n*Pad Image for Outpainting* adds empty space and makes the hole of it; say what is to be "
        "seen. *Crop for Inpaint* cuts that space out with as much of the picture as `context` says, and `grow` and `feather` "
        "let the new run into the old over 24 pixels. Every other pixel of the picture stays as it was.\n\n`feathering` "
        "stays 0 there: it would be slow on a large picture." + LICENCES
    )


WORKFLOWS = {
    "toy_inpaint_full_resolution": toy_full_resolution,
    "flux_dev_inpaint_full_resolution": full_resolution,
    "flux_dev_outpaint": outpaint,
}
