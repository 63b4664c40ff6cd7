"""Example workflows for FLUX.2 klein without any bank: 9B-KV, whose authors trained it to read references so.

Those with DiffSynth's templates on base-4B are in workflows_templates.py.
"""

from canvas import Canvas, Node, Output
from workflows_flux import wants

KLEIN, QWEN, VAE = (
    "flux-2-klein-9b-kv-fp8.safetensors",
    "qwen_3_8b_fp8mixed.safetensors",
    "flux2-vae.safetensors",
)
SIDE = 1024
PLAIN = dict(type="obj", text="", desc="", palette=[])
"""What the host's canvas knows of a box besides its place."""
MODELS = (
    "\n\n*CoLoGen Apply* has no experts here: klein 9B-KV was trained to read pictures in just this way. Klein 4B (with Qwen3-4B), "
    "klein 9B and dev read them only roughly.\n\nklein 9B-KV is for non-commercial use, klein 4B is Apache-2.0: read their "
    "licences."
)


class Klein:
    """FLUX.2 klein by stock loaders and the stock sampler for it: 9B-KV, distilled to few steps without cfg."""

    flux, qwen = KLEIN, QWEN
    steps, cfg = 4, 1.0

    def __init__(self, canvas: Canvas):
        self.canvas = canvas
        flux = canvas.add("UNETLoader", models=wants(self.flux), unet_name=self.flux, weight_dtype="default")
        self.clip = canvas.add("CLIPLoader", models=wants(self.qwen), clip_name=self.qwen, type="flux2")["CLIP"]
        self.vae = canvas.add("VAELoader", models=wants(VAE), vae_name=VAE)["VAE"]
        self.model = canvas.add("CoLoGenApply", model=flux["MODEL"], **self.load_experts())[0]

    def load_experts(self) -> dict[str, Output]:
        """What goes into CoLoGen Apply besides the model."""
        return {}

    def encode_prompt(self, text: str, title: str = "Prompt") -> Output:
        return self.canvas.add("CLIPTextEncode", title, clip=self.clip, text=text)[0]

    def load_picture(self, title: str) -> Output:
        """A picture of a million pixels, as the authors' references are."""
        picture = self.canvas.add("LoadImage", title, image="example.png")["IMAGE"]
        return self.canvas.add("ImageScaleToTotalPixels", image=picture, upscale_method="lanczos", megapixels=1.0)[0]

    def add_task(self, node: str, prompts: Node | Output, title: str = "", where: dict | None = None, **given):
        """A task with options of its own; pictures keep the size that they have."""
        options = self.canvas.add("CoLoGenSourceOptions", f"{title}: how much", size=0, **(where or {}))
        chained = isinstance(prompts, Node)
        told = dict(positive=prompts["positive"], negative=prompts["negative"]) if chained else dict(positive=prompts)
        return self.canvas.add(node, title, vae=self.vae, options=options[0], **told, **given)

    def sample(self, prompts: Node, latent: Output, width: Output | int = SIDE, height: Output | int = SIDE) -> Output:
        add = self.canvas.add
        noise = add("RandomNoise", noise_seed=7, after="randomize")
        guided = dict(model=self.model, positive=prompts["positive"], negative=prompts["negative"])
        guider = add("CFGGuider", cfg=self.cfg, **guided)
        sampler = add("KSamplerSelect", sampler_name="euler")
        sigmas = add("Flux2Scheduler", steps=self.steps, width=width, height=height)
        parts = dict(noise=noise[0], guider=guider[0], sampler=sampler[0], sigmas=sigmas[0])
        sampled = add("SamplerCustomAdvanced", latent_image=latent, **parts)
        return add("VAEDecode", samples=sampled[0], vae=self.vae)[0]

    def save_image(self, image: Output) -> None:
        self.canvas.add("SaveImage", box=(400, 420), images=image, filename_prefix="flux2_klein")


def edit(canvas: Canvas) -> None:
    klein = Klein(canvas)
    picture = klein.load_picture("What to change")
    size = canvas.add("GetImageSize", image=picture)
    prompts = klein.add_task("CoLoGenEdit", klein.encode_prompt("Make it winter"), "Change this", image=picture)
    image = klein.sample(prompts, prompts["latent"], size["width"], size["height"])
    klein.save_image(image)
    canvas.compare(picture, image)
    canvas.note(
        "## Edit on FLUX.2 klein\n\nSay what shall change. `strength` is how much of the picture is kept: 1 as trained, less "
        "gives the prompt more freedom; `end` below 1 lets go of it for the last steps." + MODELS,
    )


def two_references(canvas: Canvas) -> None:
    klein = Klein(canvas)
    one, two = klein.load_picture("One"), klein.load_picture("The other")
    halves = [dict(x=x, y=0, width=SIDE // 2, height=SIDE, metadata=PLAIN) for x in (0, SIDE // 2)]
    places = canvas.add("CreateBoundingBoxes", "Who is where", width=SIDE, height=SIDE, editor_state=halves)["bboxes"]
    left, right = (dict(boxes=places, box_number=number) for number in (1, 2))
    words = klein.encode_prompt("Both on a bench in a park, photograph")
    first = klein.add_task("CoLoGenSubject", words, "One, on the left", left, image=one)
    prompts = klein.add_task("CoLoGenSubject", first, "The other, on the right", right, image=two)
    latent = canvas.add("EmptyFlux2LatentImage", width=SIDE, height=SIDE)[0]
    klein.save_image(klein.sample(prompts, latent))
    canvas.note(
        "## Two references on FLUX.2 klein\n\nEach picture is read in its own half of the new one, so that the two do not mix: move and "
        "draw the boxes of *Who is where* (their number is `box_number`), or disconnect `boxes`, and it is read everywhere. Each "
        "has a `strength` of its own. Drawing boxes needs *Modern Node Design (Nodes 2.0)* in ComfyUI's settings; without it, put a "
        "*Bounding Box* for each picture in their place." + MODELS,
    )


WORKFLOWS = {"flux2_klein_edit": edit, "flux2_klein_two_references": two_references}
