"""Blueprints for FLUX.1-dev: each task as one node, with the knobs that matter on its face."""

import support_path  # noqa: F401
from blueprint import Blueprint
from canvas import Node, Output
from layout import ASKED, DRAWING, GIVEN, MODEL, RESULT
from workflows_flux import OWN, Dev

FILES = {
    "unet_name": "UNETLoader",
    "clip_name1": "DualCLIPLoader",
    "clip_name2": "DualCLIPLoader",
    "vae_name": "VAELoader",
}
TRAINED = f"The experts are a bank of your own ({OWN}): none is public for this task."
EASY = "The experts are EasyControl's, for research use."


def add_options(canvas: Blueprint) -> Node:
    return canvas.add("CoLoGenSourceOptions", "How much, when and where")


def show_words(canvas: Blueprint, options: Node) -> None:
    """The prompt, how strongly the picture is read, and what a run is repeated with."""
    canvas.show("prompt", (canvas.find("CLIPTextEncode"), "text"))
    canvas.show("strength", (options, "strength"))
    show_sampler(canvas, canvas.find("KSampler"))


def show_sampler(canvas: Blueprint, *samplers: Node) -> None:
    canvas.show("seed", *((sampler, "seed") for sampler in samplers))
    canvas.show("steps", *((sampler, "steps") for sampler in samplers))


def show_files(canvas: Blueprint) -> None:
    for name, kind in FILES.items():
        canvas.show(name, (canvas.find(kind), name))
    for kind, name in (("CoLoGenImportExperts", "file"), ("CoLoGenLoadExperts", "bank_name")):
        for node in canvas.nodes:
            if node.kind == kind:
                canvas.show("experts", (node, name))


def edit(canvas: Blueprint) -> None:
    dev = Dev(canvas)
    options = add_options(canvas)
    told = dev.task("CoLoGenEdit", dev.words("Make it winter"), options=options[0])
    canvas.give("IMAGE", dev.sample(told))
    canvas.show("image", (told, "image"))
    show_words(canvas, options)
    show_files(canvas)
    canvas.describe(f"Changes a picture as the prompt says. {TRAINED}", "instruction", "edit")


def fill_hole(dev: Dev, words: Output, options: Node, mask: Output | None = None) -> Node:
    """From a hole to the whole picture again; gives what cuts it."""
    given = {} if mask is None else dict(mask=mask, section=ASKED)
    cut = dev.canvas.add("CoLoGenCropForInpaint", context=2.0, **given)
    told = dev.task("CoLoGenInpaint", words, image=cut["image"], mask=cut["mask"], grow=0, options=options[0])
    whole = dev.canvas.add("CoLoGenStitch", stitch=cut["stitch"], drawn=dev.sample(told))
    dev.canvas.give("IMAGE", whole[0])
    return cut


def inpaint(canvas: Blueprint) -> None:
    dev = Dev(canvas, "inpainting")
    options = add_options(canvas)
    cut = fill_hole(dev, dev.words("A wooden toy boat"), options)
    canvas.show("image", (cut, "image"))
    canvas.show("mask", (cut, "mask"))
    show_words(canvas, options)
    canvas.show("context", (cut, "context"))
    canvas.show("grow", (cut, "grow"))
    show_files(canvas)
    canvas.describe(
        "Draws what the prompt says into the mask. The hole and its surroundings are cut out, drawn at 1024 pixels and put "
        f"back; every other pixel stays as it was. {EASY}",
        "inpaint crop",
        "crop and stitch",
        "only masked",
    )


def control(canvas: Blueprint) -> None:
    dev = Dev(canvas, "canny")
    drawn = canvas.add("CoLoGenControlMap", kind="canny", preset="medium")
    options = add_options(canvas)
    words = dev.words("A house of gingerbread in the snow, photograph")
    told = dev.task("CoLoGenControl", words, map=drawn[0], options=options[0])
    canvas.give("IMAGE", dev.sample(told))
    canvas.give("map", drawn[0])
    canvas.show("image", (drawn, "image"))
    canvas.show("kind", (drawn, "kind"), (told, "kind"))
    canvas.show("edges", (drawn, "preset"))
    show_words(canvas, options)
    show_files(canvas)
    canvas.describe(
        "Draws a map from a picture and follows it: edges, lines, soft edges, depth or a segmentation. Choose an expert of "
        f"that kind. {EASY}",
        "controlnet",
        "canny",
        "depth",
    )


def subject(canvas: Blueprint) -> None:
    dev = Dev(canvas, "subject")
    options = add_options(canvas)
    told = dev.task("CoLoGenSubject", dev.words("A SKS on a wooden bridge in the rain, photograph"), options=options[0])
    canvas.give("IMAGE", dev.sample(told, dev.square()))
    latent = canvas.find("EmptySD3LatentImage")
    canvas.show("image", (told, "image"))
    canvas.show("mask", (told, "mask"))
    show_words(canvas, options)
    canvas.show("width", (latent, "width"))
    canvas.show("height", (latent, "height"))
    show_files(canvas)
    canvas.describe(
        f"Keeps someone or something from a picture in the new one; call it SKS. A mask is optional. {EASY}",
        "reference",
        "ip adapter",
        "character",
    )


def ground_then_inpaint(canvas: Blueprint) -> None:
    dev = Dev(canvas)
    canvas.blocks = ((MODEL, GIVEN), ("Find it",), (ASKED,), (DRAWING,), (RESULT,))
    small = canvas.add("ImageScaleToTotalPixels", upscale_method="lanczos", megapixels=1.0, resolution_steps=16)
    answer, encoders = dict(form="mask", colour="magenta"), dict(clip=dev.clip["CLIP"], vae=dev.vae)
    canvas.section = "Find it"
    asked = canvas.add("CoLoGenGround", image=small[0], phrase="the dog on the left", **encoders, **answer)
    drawn = dev.sample(asked)
    first = canvas.find("KSampler")
    found = canvas.add("CoLoGenReadGrounding", drawn=drawn, **answer)
    canvas.section = ""
    options = add_options(canvas)
    cut = fill_hole(dev, dev.words("A wooden toy boat"), options, found["mask"])
    canvas.give("mask", found["mask"])
    canvas.show("image", (small, "image"), (found, "original"), (cut, "image"))
    canvas.show("find", (asked, "phrase"))
    canvas.show("prompt", (canvas.find("CLIPTextEncode"), "text"))
    canvas.show("strength", (options, "strength"))
    show_sampler(canvas, first, next(node for node in canvas.nodes if node.kind == "KSampler" and node is not first))
    canvas.show("grow", (cut, "grow"))
    show_files(canvas)
    canvas.describe(
        f"Finds what you name and draws something else in its place; every other pixel stays as it was. {TRAINED}",
        "segment",
        "replace",
        "referring expression",
    )


BLUEPRINTS = {
    "CoLoGen Edit (FLUX.1 dev)": edit,
    "CoLoGen Inpaint (FLUX.1 dev)": inpaint,
    "CoLoGen Control (FLUX.1 dev)": control,
    "CoLoGen Subject (FLUX.1 dev)": subject,
    "CoLoGen Find and Inpaint (FLUX.1 dev)": ground_then_inpaint,
}
