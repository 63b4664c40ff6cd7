"""Example workflows for FLUX.1-dev: files that are not there yet show their link and folder."""

from canvas import Canvas, Node, Output

HUB = "https://huggingface.co"
EASY = f"{HUB}/Xiaojiu-z/EasyControl/resolve/main/models"
KLEIN = f"{HUB}/Comfy-Org/flux2-klein/resolve/main/split_files"
ENCODERS = f"{HUB}/comfyanonymous/flux_text_encoders/resolve/main"
FILES = {
    "flux1-dev.safetensors": ("diffusion_models", f"{HUB}/Comfy-Org/flux1-dev/resolve/main/flux1-dev.safetensors"),
    "clip_l.safetensors": ("text_encoders", f"{ENCODERS}/clip_l.safetensors"),
    "t5xxl_fp16.safetensors": ("text_encoders", f"{ENCODERS}/t5xxl_fp16.safetensors"),
    "ae.safetensors": (
        "vae",
        f"{HUB}/Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae/ae.safetensors",
    ),
    "canny.safetensors": ("loras", f"{EASY}/canny.safetensors"),
    "subject.safetensors": ("loras", f"{EASY}/subject.safetensors"),
    "inpainting.safetensors": ("loras", f"{EASY}/inpainting.safetensors"),
    "Chroma1-HD-fp8mixed.safetensors": (
        "diffusion_models",
        f"{HUB}/Comfy-Org/Chroma1-HD_repackaged/resolve/main/split_files/diffusion_models/Chroma1-HD-fp8mixed.safetensors",
    ),
    "flux-2-klein-9b-kv-fp8.safetensors": (
        "diffusion_models",
        f"{HUB}/black-forest-labs/FLUX.2-klein-9b-kv-fp8/resolve/main/flux-2-klein-9b-kv-fp8.safetensors",
    ),
    "qwen_3_8b_fp8mixed.safetensors": (
        "text_encoders",
        f"{HUB}/Comfy-Org/flux2-klein-9B/resolve/main/split_files/text_encoders/qwen_3_8b_fp8mixed.safetensors",
    ),
    "flux-2-klein-base-4b.safetensors": (
        "diffusion_models",
        f"{KLEIN}/diffusion_models/flux-2-klein-base-4b.safetensors",
    ),
    "flux-2-klein-4b.safetensors": ("diffusion_models", f"{KLEIN}/diffusion_models/flux-2-klein-4b.safetensors"),
    "qwen_3_4b.safetensors": ("text_encoders", f"{KLEIN}/text_encoders/qwen_3_4b.safetensors"),
    "flux2-vae.safetensors": (
        "vae",
        f"{HUB}/Comfy-Org/flux2-dev/resolve/main/split_files/vae/flux2-vae.safetensors",
    ),
    **{
        f"Template-KleinBase4B-{name}.safetensors": (
            "cologen",
            f"{HUB}/DiffSynth-Studio/Template-KleinBase4B-{name}/resolve/main/model.safetensors",
        )
        for name in ("ControlNet", "Edit", "Upscaler", "Brightness")
    },
}
"""Name -> folder and link, of all workflows but the toy ones."""
OWN = "my_experts.safetensors"
"""A bank that the user trained; none is public."""
LICENCES = (
    "\n\nThe files go into `models/loras`. FLUX.1-dev and these files are for non-commercial or research use: read their "
    "licences."
)
TRAINED = (
    "\n\nNo trained bank of this task is public for FLUX.1-dev. Train yours (README, *Training*), put it into "
    "`models/cologen` and choose it in *Load Experts*."
)


class Stock:
    """FLUX.1-dev by stock loaders."""

    def __init__(self, canvas: Canvas):
        self.canvas = canvas
        self.flux = self._file("UNETLoader", "flux1-dev.safetensors", "unet_name", weight_dtype="default")
        self.clip = canvas.add(
            "DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2="t5xxl_fp16.safetensors", type="flux",
            models=wants("clip_l.safetensors", "t5xxl_fp16.safetensors"),
        )  # fmt: skip
        self.vae = self._file("VAELoader", "ae.safetensors", "vae_name")["VAE"]
        self.model = self.flux

    def _file(self, kind: str, name: str, field: str, title: str = "", **more) -> Node:
        return self.canvas.add(kind, title, models=wants(name), **{field: name}, **more)

    def words(self, text: str, title: str = "Prompt", kind: str = "CLIPTextEncode") -> Output:
        text = self.canvas.add(kind, title, clip=self.clip["CLIP"], text=text)
        return self.canvas.add("FluxGuidance", conditioning=text[0], guidance=3.5)[0]

    def picture(self, title: str) -> Node:
        return self.canvas.add("LoadImage", title, image="example.png")

    def square(self) -> Output:
        return self.canvas.add("EmptySD3LatentImage", width=1024, height=1024)[0]

    def sample(self, told: Node, latent: Output | None = None) -> Output:
        sampled = self.canvas.add(
            "KSampler", model=self.model[0], positive=told["positive"], negative=told["negative"],
            latent_image=latent or told["latent"], seed=7, steps=25, cfg=1.0, sampler_name="euler", scheduler="simple",
            after="randomize",
        )  # fmt: skip
        return self.canvas.add("VAEDecode", samples=sampled[0], vae=self.vae)[0]

    def save_image(self, image: Output, name: str) -> None:
        self.canvas.add("SaveImage", box=(400, 420), images=image, filename_prefix=name)

    def note(self, text: str) -> None:
        self.canvas.note(text)


class Dev(Stock):
    """And experts for it."""

    def __init__(self, canvas: Canvas, *imported: str):
        super().__init__(canvas)
        banks = [
            self._file("CoLoGenImportExperts", f"{name}.safetensors", "file", f"EasyControl {name}")
            for name in imported
        ] or [canvas.add("CoLoGenLoadExperts", bank_name=OWN)]
        if len(banks) > 1:
            several = {f"experts_{i + 1}": bank["experts"] for i, bank in enumerate(banks)}
            banks = [canvas.add("CoLoGenMergeExperts", "All in one bank", **several)]
        self.experts = banks[0]["experts"]
        self.model = canvas.add("CoLoGenApply", model=self.flux["MODEL"], experts=self.experts)

    def task(self, node: str, prompts: Node | Output, title: str = "", **given) -> Node:
        chained = isinstance(prompts, Node)
        told = dict(positive=prompts["positive"], negative=prompts["negative"]) if chained else dict(positive=prompts)
        return self.canvas.add(node, title, vae=self.vae, experts=self.experts, **told, **given)


def wants(*names: str) -> list[tuple[str, str, str]]:
    return [(name, *FILES[name]) for name in names]


def inpaint(canvas: Canvas) -> None:
    dev = Dev(canvas, "inpainting")
    picture = dev.picture("Picture: paint the hole in the mask editor")
    hole = dict(mask=picture["MASK"], grow=6)
    told = dev.task("CoLoGenInpaint", dev.words("A wooden toy boat"), image=picture["IMAGE"], **hole)
    whole = canvas.add("CoLoGenPasteBack", drawn=dev.sample(told), original=picture["IMAGE"], **hole)
    dev.save_image(whole[0], "inpaint")
    canvas.compare(picture["IMAGE"], whole[0])
    dev.note(
        "## Inpaint on FLUX.1-dev\n\nRight-click the picture, *Open in MaskEditor*, paint what shall be new, say what it "
        "shall be. *Paste Back* returns every other pixel as it was." + LICENCES
    )


def control(canvas: Canvas) -> None:
    dev = Dev(canvas, "canny")
    picture = dev.picture("What to follow")
    lines = canvas.add("Canny", image=picture["IMAGE"], low_threshold=0.2, high_threshold=0.5)
    words = dev.words("A house of gingerbread in the snow, photograph")
    dev.save_image(dev.sample(dev.task("CoLoGenControl", words, map=lines[0], kind="canny")), "control")
    dev.note("## Control on FLUX.1-dev\n\nThe picture's edges say what is where, the words say what it is." + LICENCES)


def subject(canvas: Canvas) -> None:
    dev = Dev(canvas, "subject")
    words = dev.words("A SKS on a wooden bridge in the rain, photograph")
    told = dev.task("CoLoGenSubject", words, image=dev.picture("Whom to keep")["IMAGE"])
    dev.save_image(dev.sample(told, dev.square()), "subject")
    dev.note("## Subject on FLUX.1-dev\n\nThis expert was trained with the word **SKS** for the subject." + LICENCES)


def control_subject(canvas: Canvas) -> None:
    dev = Dev(canvas, "canny", "subject")
    lines = canvas.add("Canny", image=dev.picture("What to follow")["IMAGE"], low_threshold=0.2, high_threshold=0.5)
    words = dev.words("A SKS on a wooden bridge in the rain, photograph")
    followed = dev.task("CoLoGenControl", words, "Follow these edges", map=lines[0], kind="canny")
    whom = dev.picture("Whom to keep")["IMAGE"]
    told = dev.task("CoLoGenSubject", followed, "Keep this subject", image=whom)
    dev.save_image(dev.sample(told, dev.square()), "control_subject")
    canvas.add("CoLoGenSaveExperts", "Both as one bank", experts=dev.experts, name="easycontrol")
    dev.note(
        "## EasyControl, several at once\n\nTask nodes chain, and each may have a strength, a window and a region of its own "
        "(*CoLoGen Source Options*). Saved as one bank, both load at once." + LICENCES
    )


def edit(canvas: Canvas) -> None:
    dev = Dev(canvas)
    picture = dev.picture("What to change")["IMAGE"]
    image = dev.sample(dev.task("CoLoGenEdit", dev.words("Make it winter"), image=picture))
    dev.save_image(image, "edit")
    canvas.compare(picture, image)
    dev.note("## Edit on FLUX.1-dev\n\nAn instruction changes one thing and leaves the rest." + TRAINED)


def ground(canvas: Canvas) -> None:
    dev = Dev(canvas)
    picture, answer = dev.picture("Where to look")["IMAGE"], dict(form="mask", colour="magenta")
    told = canvas.add(
        "CoLoGenGround",
        clip=dev.clip["CLIP"],
        vae=dev.vae,
        image=picture,
        phrase="the dog on the left",
        **answer,
    )
    found = canvas.add("CoLoGenReadGrounding", drawn=dev.sample(told), original=picture, **answer)
    dev.save_image(found["overlay"], "ground")
    dev.note("## Find on FLUX.1-dev\n\nThe answer is drawn on the picture, then read as a mask and a box." + TRAINED)


def personal(canvas: Canvas) -> None:
    dev = Dev(canvas, "subject")
    marked = "CoLoGenMarkedPrompt"
    words = dev.words("a [SKS] surfing a wave at sunset, photograph", "The subject marked", marked)
    other = dev.words("a [dog] surfing a wave at sunset, photograph", "A noun that FLUX knows", marked)
    told = dev.task("CoLoGenSubject", words, image=dev.picture("Whom to keep")["IMAGE"])
    dev.model = canvas.add("CoLoGenDualBranch", model=dev.model[0], auxiliary=other)
    image = dev.sample(told, dev.square())
    dev.save_image(image, "personal")
    canvas.add("CoLoGenBranchMap", box=(640, 300), model=dev.model[0], latent=image.node.values["samples"])
    dev.note(
        "## A subject in a scene of its noun\n\nFor the first third of the sampling a second picture is drawn beside, with a "
        "common noun in place of **SKS**, and lends its scene. Say in the second prompt what kind of thing your subject is: "
        "the two prompts differ in nothing else. `strength` above 0 takes more of the scene, below 0 keeps more of the "
        "subject; *Branch Map* shows who was heard where." + LICENCES
    )


WORKFLOWS = {
    "flux_dev_inpaint": inpaint,
    "flux_dev_ground": ground,
    "flux_dev_control": control,
    "flux_dev_subject": subject,
    "flux_dev_edit": edit,
    "flux_dev_control_and_subject": control_subject,
    "flux_dev_personal": personal,
}
