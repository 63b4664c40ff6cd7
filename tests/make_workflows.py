"""Writes example_workflows/: `python tests/make_workflows.py` with a ComfyUI at hand. tests/test_workflows.py runs them."""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from canvas import Canvas, Node
from cologen.prw.tasks import TASKS
from cologen.training.server import TOY, Server, base_directory
from pack import HOST, ROOT

FOLDER = ROOT / "example_workflows"
HUB = "https://huggingface.co"
EASY = f"{HUB}/Xiaojiu-z/EasyControl/resolve/main/models"
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
    "depth.safetensors": ("loras", f"{EASY}/depth.safetensors"),
    "subject.safetensors": ("loras", f"{EASY}/subject.safetensors"),
    "inpainting.safetensors": ("loras", f"{EASY}/inpainting.safetensors"),
}


def wants(*names: str) -> list[tuple[str, str, str]]:
    return [(name, *FILES[name]) for name in names]


def toy(canvas: Canvas) -> tuple[Node, Node]:
    flux = canvas.add("CoLoGenLoadFlux", (0, 0), unet_name=TOY, vae_name=TOY)
    bank = canvas.add("CoLoGenLoadExperts", (0, 5), bank_name=TOY)
    return flux, bank


def toy_picture(canvas: Canvas, flux: Node, bank: Node, task: str, column: float = 1, name: str = "") -> None:
    """From a question to its answer, drawn with a bank."""
    question = canvas.add("CoLoGenToyQuestion", (column - 1, 8), task=task, question_seed=3)
    model = canvas.add("CoLoGenApply", (column, 0), model=flux["MODEL"], experts=bank["experts"])
    told = canvas.add("CLIPTextEncode", (column, 3), "Prompt", clip=flux["CLIP"], text=question["prompt"])
    empty = canvas.add("CLIPTextEncode", (column, 6), "No words", clip=flux["CLIP"], text="")
    given = dict(vae=flux["VAE"], image=question["source"], task=task, size=0)
    with_words = canvas.add("CoLoGenSource", (column + 1, 0), conditioning=told[0], **given)
    without = canvas.add("CoLoGenSource", (column + 1, 10), "The same without words", conditioning=empty[0], **given)
    latent = canvas.add("EmptySD3LatentImage", (column + 2, 6), width=64, height=64)
    drawn = canvas.add(
        "KSampler", (column + 2, 0), model=model[0], positive=with_words[0], negative=without[0], latent_image=latent[0],
        seed=7, steps=12, cfg=1.5, sampler_name="euler", scheduler="simple",
    )  # fmt: skip
    image = canvas.add("VAEDecode", (column + 3, 0), samples=drawn[0], vae=flux["VAE"])
    canvas.add(
        "SaveImage", (column + 3, 2), "Drawn", (300, 300), images=image[0], filename_prefix=name or f"toy_{task}"
    )
    canvas.add("PreviewImage", (column + 3, 8), "Given", (300, 260), images=question["source"])
    canvas.add("PreviewImage", (column + 3, 13), "The right answer", (300, 260), images=question["answer"])


def toy_task(task: str) -> Callable[[Canvas], None]:
    def build(canvas: Canvas) -> None:
        flux, bank = toy(canvas)
        toy_picture(canvas, flux, bank, task)
        canvas.note(
            f"## {TASKS[task].label}, in the toy world\n\nNothing to download. *Toy Question* draws what is asked: change "
            f"its number for another scene. The source runs through FLUX once; the sampler's steps only read it.",
            (0, 11),
        )

    return build


def toy_train(canvas: Canvas) -> None:
    flux = canvas.add("CoLoGenLoadFlux", (0, 0), unet_name=TOY, vae_name=TOY)
    data = canvas.add(
        "CoLoGenTrainingData", (0, 11), vae=flux["VAE"], clip=flux["CLIP"], source="built-in world", task="edit", count=512,
    )  # fmt: skip
    stage = canvas.add(
        "CoLoGenTrainStage", (1, 11), model=flux["MODEL"], data=data["data"], task="edit", run="toy_edit", iterations=60,
        batch=16, rank=16, alpha=32.0, rate=2e-3, time_shift=4.0, micro=0, checkpointing=False, sample_every=30,
    )  # fmt: skip
    canvas.add("CoLoGenUsagePlot", (2, 20), loss=stage["loss"])
    canvas.add("PreviewImage", (3, 20), "Drawn on the way", (300, 300), images=stage["samples"])
    toy_picture(canvas, flux, stage, "edit", name="toy_trained")
    canvas.note(
        "## Train one expert\n\nSixty iterations take a minute or two and show how it goes; some hundreds learn the task. "
        "Cancel keeps what was learned, queue again goes on. The run is in `output/cologen/toy_edit`.\n\nFor your own "
        "pictures choose *folder* in the data node.",
        (-1, 0),
    )


def flux_dev(canvas: Canvas, prompt: str) -> tuple[Node, Node, Node]:
    """FLUX.1-dev by stock loaders: MODEL, prompt with guidance, VAE."""
    flux = canvas.add(
        "UNETLoader", (0, 0), unet_name="flux1-dev.safetensors", weight_dtype="default",
        models=wants("flux1-dev.safetensors"),
    )  # fmt: skip
    clip = canvas.add(
        "DualCLIPLoader", (0, 3), clip_name1="clip_l.safetensors", clip_name2="t5xxl_fp16.safetensors", type="flux",
        models=wants("clip_l.safetensors", "t5xxl_fp16.safetensors"),
    )  # fmt: skip
    vae = canvas.add("VAELoader", (0, 7), vae_name="ae.safetensors", models=wants("ae.safetensors"))
    text = canvas.add("CLIPTextEncode", (1, 6), "Prompt", (300, 160), clip=clip["CLIP"], text=prompt)
    return flux, canvas.add("FluxGuidance", (1, 10), conditioning=text[0], guidance=3.5), vae


def imported(canvas: Canvas, name: str, row: float, before: Node | None = None) -> Node:
    more = {} if before is None else {"experts": before["experts"]}
    file = f"{name}.safetensors"
    return canvas.add("CoLoGenImportExperts", (0, row), f"EasyControl {name}", file=file, models=wants(file), **more)


def flux_picture(canvas: Canvas, flux: Node, bank: Node, positive: Node, vae: Node, name: str) -> None:
    model = canvas.add("CoLoGenApply", (1, 0), model=flux["MODEL"], experts=bank["experts"])
    nothing = canvas.add("ConditioningZeroOut", (3, 7), conditioning=positive[0])
    latent = canvas.add("EmptySD3LatentImage", (3, 9), width=1024, height=1024)
    drawn = canvas.add(
        "KSampler", (3, 0), model=model[0], positive=positive[0], negative=nothing[0], latent_image=latent[0],
        seed=7, steps=25, cfg=1.0, sampler_name="euler", scheduler="simple", after="randomize",
    )  # fmt: skip
    image = canvas.add("VAEDecode", (4, 0), samples=drawn[0], vae=vae["VAE"])
    canvas.add("SaveImage", (4, 2), box=(400, 420), images=image[0], filename_prefix=name)


def flux_dev_easycontrol(canvas: Canvas) -> None:
    flux, words, vae = flux_dev(canvas, "A SKS on a wooden bridge in the rain, photograph")
    bank = imported(canvas, "subject", 14, imported(canvas, "canny", 10))
    edges = canvas.add("LoadImage", (1, 13), "What to follow", image="example.png")
    lines = canvas.add("Canny", (1, 19), image=edges["IMAGE"], low_threshold=0.2, high_threshold=0.5)
    whom = canvas.add("LoadImage", (1, 22), "Whom to keep", image="example.png")
    given = dict(vae=vae["VAE"], experts=bank["experts"])
    first = canvas.add(
        "CoLoGenSource", (2, 0), "Follow these edges", conditioning=words[0], image=lines[0], task="control", expert="canny",
        **given,
    )  # fmt: skip
    second = canvas.add(
        "CoLoGenSource", (2, 13), "Keep this subject", conditioning=first[0], image=whom["IMAGE"], task="subject",
        expert="subject", **given,
    )  # fmt: skip
    flux_picture(canvas, flux, bank, second, vae, "easycontrol")
    canvas.add("CoLoGenSaveExperts", (4, 10), "Both as one bank", experts=bank["experts"], name="easycontrol")
    canvas.note(
        "## EasyControl, several at once\n\nPut the files into `models/loras`. Each source has a strength, a window and a "
        "region of its own. The bank is connected to the sources, too, so that their pictures are fitted to 512 × 512.\n\n"
        "The subject's prompt wants the word **SKS**. FLUX.1-dev and these files are for non-commercial or research use: "
        "read their licences.",
        (-1, 0),
    )


def flux_dev_easycontrol_inpaint(canvas: Canvas) -> None:
    flux, words, vae = flux_dev(canvas, "A wooden toy boat")
    bank = imported(canvas, "inpainting", 10)
    picture = canvas.add("LoadImage", (1, 13), "Picture: paint the hole in the mask editor", image="example.png")
    source = canvas.add(
        "CoLoGenSource", (2, 0), "Fill the hole", conditioning=words[0], vae=vae["VAE"], image=picture["IMAGE"],
        task="inpaint", expert="inpainting", experts=bank["experts"], hole=picture["MASK"],
    )  # fmt: skip
    flux_picture(canvas, flux, bank, source, vae, "easycontrol_inpaint")
    canvas.note(
        "## EasyControl inpainting\n\nRight-click the picture, *Open in MaskEditor*, paint what shall be new. This expert "
        "was trained on black holes, and *CoLoGen Source* paints them so. For a square picture use a square source: it is "
        "stretched to 512 × 512 and laid over the whole.",
        (-1, 0),
    )


WORKFLOWS: dict[str, Callable[[Canvas], None]] = {
    **{f"toy_{task}": toy_task(task) for task in TASKS},
    "toy_train_stage": toy_train,
    "flux_dev_easycontrol_canny_and_subject": flux_dev_easycontrol,
    "flux_dev_easycontrol_inpainting": flux_dev_easycontrol_inpaint,
}


def drawn(name: str, info: dict) -> Canvas:
    canvas = Canvas(info)
    WORKFLOWS[name](canvas)
    return canvas


def text_of(canvas: Canvas) -> str:
    return json.dumps(canvas.saved(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(HOST, base_directory(Path(folder) / "base", {}))
        try:
            info = server.get("/object_info")
        finally:
            server.stop()
    for name in WORKFLOWS:
        path = FOLDER / f"{name}.json"
        path.write_text(text_of(drawn(name, info)), encoding="utf-8")
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
