"""An example workflow that trains an expert on FLUX.2 klein-base-4B and uses it on the distilled klein 4B."""

from canvas import Canvas
from layout import ASKED
from workflows_flux import wants

BASE, DISTILLED, QWEN, VAE = (
    "flux-2-klein-base-4b.safetensors",
    "flux-2-klein-4b.safetensors",
    "qwen_3_4b.safetensors",
    "flux2-vae.safetensors",
)
NAME = "my_klein_edit"
"""Of the run and of the bank."""


def train_expert(canvas: Canvas) -> None:
    add = canvas.add
    base = add("UNETLoader", "Train on this", models=wants(BASE), unet_name=BASE, weight_dtype="default")
    clip = add("CLIPLoader", models=wants(QWEN), clip_name=QWEN, type="flux2")["CLIP"]
    vae = add("VAELoader", models=wants(VAE), vae_name=VAE)["VAE"]
    fast = add("UNETLoader", "Use it on this", models=wants(DISTILLED), unet_name=DISTILLED, weight_dtype="default")
    data = add("CoLoGenTrainingData", "Pairs and their words", vae=vae, clip=clip, task="edit")
    knobs = dict(task="edit", run=NAME, iterations=2000, batch=2, time_shift=2.0)
    trained = add("CoLoGenTrainStage", model=base["MODEL"], data=data["data"], **knobs)
    add("CoLoGenSaveExperts", "Keep it", experts=trained["experts"], name=NAME)

    applied = add("CoLoGenApply", section=ASKED, model=fast["MODEL"], experts=trained["experts"])
    words = add("CLIPTextEncode", "Prompt", clip=clip, text="Make it winter")[0]
    chosen = add("LoadImage", "What to change", image="example.png")["IMAGE"]
    picture = add("ImageScaleToTotalPixels", image=chosen, upscale_method="lanczos", megapixels=1.0)[0]
    told = add("CoLoGenEdit", positive=words, vae=vae, image=picture, experts=trained["experts"])
    size = add("GetImageSize", image=picture)

    noise = add("RandomNoise", noise_seed=7, after="randomize")
    guided = dict(model=applied[0], positive=told["positive"], negative=told["negative"])
    guider = add("CFGGuider", cfg=1.0, **guided)
    sampler = add("KSamplerSelect", sampler_name="euler")
    sigmas = add("Flux2Scheduler", steps=4, width=size["width"], height=size["height"])
    parts = dict(noise=noise[0], guider=guider[0], sampler=sampler[0], sigmas=sigmas[0])
    sampled = add("SamplerCustomAdvanced", latent_image=told["latent"], **parts)
    image = add("VAEDecode", samples=sampled[0], vae=vae)[0]
    add("SaveImage", box=(400, 420), images=image, filename_prefix=NAME)
    canvas.note(
        "## Train an expert on FLUX.2 klein\n\nPut pairs into `input/cologen/my_pictures`: `NAME.source.png` (before), "
        "`NAME.png` (after) and `NAME.txt` (the instruction). For another task, such as control, choose that `task` in both "
        "training nodes, and take its task node.\n\nIt is trained on klein-base-4B and used on klein 4B, which has the same "
        "shapes and draws in 4 steps: the base is the one that was made for training, the other one is distilled from it. To "
        "draw with the base, connect its MODEL to *CoLoGen Apply*, and take 50 steps and cfg 4.\n\nCancel keeps what was "
        "learned, queue again goes on; a finished run is not trained again. Later, choose the bank in *Load CoLoGen "
        "Experts*.\n\nBoth models are Apache-2.0: read their licence. Out of memory: an fp8 `weight_dtype` for the base, "
        "`size` 512 or less.",
    )


WORKFLOWS = {"flux2_klein_train_expert": train_expert}
