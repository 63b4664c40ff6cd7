"""Example workflows for FLUX.2 klein base-4B with DiffSynth's Diffusion Templates: second models that read a picture and a prompt."""

from canvas import Canvas, Node, Output
from workflows_flux import wants
from workflows_flux2 import SIDE, Klein

NEGATIVE = ""
"""As the templates' authors sample: the other side of cfg has the same picture and no words."""
LICENCES = "\n\nklein base-4B, Qwen3-4B, the VAE and the templates are Apache-2.0: read their licences."
LOADED = (
    "\n\nThe template is a second model of 8 GB: save its `model.safetensors` under the name that *Load Experts* shows, in "
    "`models/cologen`. It runs once per picture; `cologen bank extract` makes a file of some hundred MB of it.\n\nBoth prompts "
    "go through the task node, and the template reads each of them. cfg 4 and 50 steps are its authors' figures."
    + LICENCES
)


class KleinBase(Klein):
    """FLUX.2 klein base-4B, which is not distilled."""

    flux, qwen = "flux-2-klein-base-4b.safetensors", "qwen_3_4b.safetensors"
    steps, cfg = 50, 4.0


class KleinTemplate(KleinBase):
    """And a template for it."""

    def __init__(self, canvas: Canvas, name: str):
        self.template = f"Template-KleinBase4B-{name}.safetensors"
        super().__init__(canvas)

    def load_experts(self) -> dict[str, Output]:
        loaded = self.canvas.add("CoLoGenLoadExperts", "Template", models=wants(self.template), bank_name=self.template)
        self.experts = loaded["experts"]
        return {"experts": self.experts}

    def add_task(self, node: str, prompt: Output, title: str = "", size: int = 0, **given) -> Node:
        """A task with both prompts: the template reads each beside the picture."""
        none = self.encode_prompt(NEGATIVE, "Negative prompt: none")
        options = self.canvas.add("CoLoGenSourceOptions", "How much, when and where", size=size)
        told = dict(positive=prompt, negative=none, options=options[0], experts=self.experts)
        return self.canvas.add(node, title, vae=self.vae, **told, **given)

    def note(self, text: str) -> None:
        self.canvas.note(text + LOADED)


def control(canvas: Canvas) -> None:
    klein = KleinTemplate(canvas, "ControlNet")
    picture = klein.load_picture("What to follow")
    size = canvas.add("GetImageSize", image=picture)
    lines = canvas.add("Canny", image=picture, low_threshold=0.2, high_threshold=0.5)[0]
    prompt = klein.encode_prompt("A house of gingerbread in the snow, photograph")
    prompts = klein.add_task("CoLoGenControl", prompt, "Follow these edges", map=lines, kind="canny")
    klein.save_image(klein.sample(prompts, prompts["latent"], size["width"], size["height"]))
    klein.note(
        "## Control on FLUX.2 klein\n\nThe picture's edges say what is where, the words say what it is. Other maps "
        "(*CoLoGen Control Map*: depth, lines) go in the same way. `strength` is how closely they are followed; `end` below 1 "
        "leaves the last steps to the words."
    )


def upscale(canvas: Canvas) -> None:
    klein = KleinTemplate(canvas, "Upscaler")
    picture = canvas.add("LoadImage", "A small picture", image="example.png")["IMAGE"]
    small = canvas.add(
        "ImageScaleToTotalPixels", "Here: small as a thumbnail",
        image=picture, upscale_method="area", megapixels=0.06,
    )[0]  # fmt: skip
    prompt = klein.encode_prompt("A photograph, sharp and detailed")
    prompts = klein.add_task("CoLoGenEdit", prompt, "Draw this one large", image=small)
    latent = canvas.add("EmptyFlux2LatentImage", "The new size", width=SIDE, height=SIDE)[0]
    klein.save_image(klein.sample(prompts, latent))
    klein.note(
        "## Upscale with FLUX.2 klein\n\nA new picture with the small one's content, at the size of the empty latent; give "
        "both the same proportions. Say in the prompt what is to be seen. Connect your small picture itself (of 100 to 512 "
        "pixels): it is not enlarged before the template reads it."
    )


def inpaint(canvas: Canvas) -> None:
    klein, add = KleinTemplate(canvas, "Edit"), canvas.add
    picture = add("LoadImage", "Paint the hole in the mask editor", image="example.png")
    scaling = dict(upscale_method="lanczos", megapixels=1.0, resolution_steps=16)
    scaled = add("ImageScaleToTotalPixels", image=picture["IMAGE"], **scaling)[0]
    size, hole = add("GetImageSize", image=scaled), dict(mask=picture["MASK"], grow=6)
    prompts = klein.add_task(
        "CoLoGenEdit", klein.encode_prompt("Put a wooden toy boat there"), "Change this", image=scaled
    )
    grown = add("GrowMask", mask=hole["mask"], expand=hole["grow"])[0]
    whole = add("VAEEncode", pixels=scaled, vae=klein.vae)[0]
    latent = add("SetLatentNoiseMask", "Only here", samples=whole, mask=grown)[0]
    drawn = klein.sample(prompts, latent, size["width"], size["height"])
    whole = add("CoLoGenPasteBack", drawn=drawn, original=picture["IMAGE"], **hole)[0]
    klein.save_image(whole)
    canvas.compare(picture["IMAGE"], whole)
    klein.note(
        "## Inpaint on FLUX.2 klein\n\nRight-click the picture, *Open in MaskEditor*, paint where it may change, and say what "
        "shall change: the template that edits does the rest, and the sampler leaves everything else alone. *Paste Back* "
        "returns every other pixel as it was."
    )


WORKFLOWS = {"flux2_klein_control": control, "flux2_klein_upscale": upscale, "flux2_klein_inpaint": inpaint}
