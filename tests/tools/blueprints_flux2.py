"""Blueprints for FLUX.2 klein: without a bank on 9B-KV, with DiffSynth's templates on base-4B.

Finding has none: no public expert of FLUX.2 answers where a thing is.
"""

import support_path  # noqa: F401
from blueprint import Blueprint
from canvas import Node, Output
from workflows_flux2 import Klein
from workflows_templates import KleinTemplate

KV = "klein 9B-KV was trained to read pictures so; it is for non-commercial use."
TEMPLATE = "The template is a second model of 8 GB by DiffSynth-Studio; all files are Apache-2.0."


def scale_picture(canvas: Blueprint) -> Node:
    """A picture of a million pixels, as the authors' references are."""
    knobs = dict(upscale_method="lanczos", megapixels=1.0, resolution_steps=16)
    return canvas.add("ImageScaleToTotalPixels", **knobs)


def show_words(canvas: Blueprint) -> None:
    canvas.show("prompt", (canvas.find("CLIPTextEncode", "Prompt"), "text"))
    canvas.show("strength", (canvas.find("CoLoGenSourceOptions"), "strength"))
    canvas.show("seed", (canvas.find("RandomNoise"), "noise_seed"))


def show_files(canvas: Blueprint) -> None:
    for name, kind in {"unet_name": "UNETLoader", "clip_name": "CLIPLoader", "vae_name": "VAELoader"}.items():
        canvas.show(name, (canvas.find(kind), name))
    for node in canvas.nodes:
        if node.kind == "CoLoGenLoadExperts":
            canvas.show("template", (node, "bank_name"))


def sample_at_size(klein: Klein, prompts: Node, picture: Output, latent: Output | None = None) -> Output:
    size = klein.canvas.add("GetImageSize", image=picture)
    return klein.sample(prompts, latent or prompts["latent"], size["width"], size["height"])


def edit(canvas: Blueprint) -> None:
    klein = Klein(canvas)
    picture = scale_picture(canvas)
    prompts = klein.add_task("CoLoGenEdit", klein.encode_prompt("Make it winter"), "Change this", image=picture[0])
    canvas.give("IMAGE", sample_at_size(klein, prompts, picture[0]))
    canvas.show("image", (picture, "image"))
    show_words(canvas)
    show_files(canvas)
    canvas.describe(f"Changes a picture as the prompt says, in four steps. {KV}", "instruction", "edit", "kontext")


def subject(canvas: Blueprint) -> None:
    klein = Klein(canvas)
    picture = scale_picture(canvas)
    words = klein.encode_prompt("The same on a wooden bridge in the rain, photograph")
    prompts = klein.add_task("CoLoGenSubject", words, "Keep this", image=picture[0])
    latent = canvas.add("EmptyFlux2LatentImage")
    canvas.give("IMAGE", klein.sample(prompts, latent[0]))
    steps = canvas.find("Flux2Scheduler")
    canvas.show("image", (picture, "image"))
    show_words(canvas)
    canvas.show("width", (latent, "width"), (steps, "width"))
    canvas.show("height", (latent, "height"), (steps, "height"))
    show_files(canvas)
    canvas.describe(
        f"Keeps someone or something from a picture in the new one, in four steps. {KV}", "reference", "character"
    )


def control(canvas: Blueprint) -> None:
    klein = KleinTemplate(canvas, "ControlNet")
    picture = scale_picture(canvas)
    drawn = canvas.add("CoLoGenControlMap", kind="canny", preset="medium", image=picture[0])
    prompt = klein.encode_prompt("A house of gingerbread in the snow, photograph")
    prompts = klein.add_task("CoLoGenControl", prompt, "Follow this", map=drawn[0])
    canvas.give("IMAGE", sample_at_size(klein, prompts, picture[0]))
    canvas.give("map", drawn[0])
    canvas.show("image", (picture, "image"))
    canvas.show("kind", (drawn, "kind"), (prompts, "kind"))
    canvas.show("edges", (drawn, "preset"))
    show_words(canvas)
    show_files(canvas)
    canvas.describe(
        f"Draws a map from a picture and follows it: edges, lines, soft edges, depth. {TEMPLATE}",
        "controlnet",
        "canny",
        "depth",
    )


def inpaint(canvas: Blueprint) -> None:
    klein, add = KleinTemplate(canvas, "Edit"), canvas.add
    cut = add("CoLoGenCropForInpaint", context=2.0)
    prompt = klein.encode_prompt("Put a wooden toy boat there")
    prompts = klein.add_task("CoLoGenEdit", prompt, "Change this", image=cut["image"])
    whole = add("VAEEncode", pixels=cut["image"], vae=klein.vae)
    latent = add("SetLatentNoiseMask", "Only here", samples=whole[0], mask=cut["mask"])
    drawn = sample_at_size(klein, prompts, cut["image"], latent[0])
    canvas.give("IMAGE", add("CoLoGenStitch", stitch=cut["stitch"], drawn=drawn)[0])
    canvas.show("image", (cut, "image"))
    canvas.show("mask", (cut, "mask"))
    show_words(canvas)
    canvas.show("context", (cut, "context"))
    canvas.show("grow", (cut, "grow"))
    show_files(canvas)
    canvas.describe(
        "Says what shall change within the mask. The hole and its surroundings are cut out, drawn at 1024 pixels and put "
        f"back; every other pixel stays as it was. {TEMPLATE}",
        "inpaint crop",
        "crop and stitch",
        "only masked",
    )


BLUEPRINTS = {
    "CoLoGen Edit (FLUX.2 klein 9B-KV)": edit,
    "CoLoGen Subject (FLUX.2 klein 9B-KV)": subject,
    "CoLoGen Inpaint (FLUX.2 klein base-4B)": inpaint,
    "CoLoGen Control (FLUX.2 klein base-4B)": control,
}
