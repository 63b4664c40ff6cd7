"""Example workflow for Chroma: nobody has trained experts for it, so one of FLUX.1's is lent to it."""

from canvas import Canvas
from workflows_flux import wants

CHROMA, T5, VAE, CANNY = (
    "Chroma1-HD-fp8mixed.safetensors",
    "t5xxl_fp16.safetensors",
    "ae.safetensors",
    "canny.safetensors",
)
CFG, STEPS = 3.5, 26


def control(canvas: Canvas) -> None:
    add = canvas.add
    flux = add("UNETLoader", models=wants(CHROMA), unet_name=CHROMA, weight_dtype="default")
    clip = add("CLIPLoader", models=wants(T5), clip_name=T5, type="chroma")["CLIP"]
    vae = add("VAELoader", models=wants(VAE), vae_name=VAE)["VAE"]
    experts = add(
        "CoLoGenImportExperts",
        "EasyControl canny, lent to Chroma",
        models=wants(CANNY),
        file=CANNY,
        kind="canny",
        family="Chroma",
    )["experts"]
    model = add("CoLoGenApply", model=flux["MODEL"], experts=experts)[0]
    words = "A house of gingerbread in the snow, photograph"
    positive = add("CLIPTextEncode", "Prompt", clip=clip, text=words)[0]
    avoided = "Low quality, blurred, flat drawing"
    negative = add("CLIPTextEncode", "What to avoid", clip=clip, text=avoided)[0]
    picture = add("LoadImage", "What to follow", image="example.png")["IMAGE"]
    lines = add("Canny", image=picture, low_threshold=0.2, high_threshold=0.5)[0]
    options = add("CoLoGenSourceOptions", "How much", strength=1.0, end=0.7)[0]
    told = dict(positive=positive, negative=negative, vae=vae, options=options, experts=experts)
    prompts = add("CoLoGenControl", "Follow these edges", map=lines, kind="canny", **told)
    sampled = add(
        "KSampler", model=model, positive=prompts["positive"], negative=prompts["negative"],
        latent_image=prompts["latent"], seed=7, steps=STEPS, cfg=CFG, sampler_name="euler", scheduler="beta",
        after="randomize",
    )  # fmt: skip
    image = add("VAEDecode", samples=sampled[0], vae=vae)[0]
    add("SaveImage", box=(400, 420), images=image, filename_prefix="chroma_control")
    canvas.note(
        "## Control on Chroma\n\nNo experts are public for Chroma. Its blocks have the shapes of FLUX.1's, so *Import Experts* with "
        "`family` Chroma lends it EasyControl's canny expert. That is a loan: the file was trained on FLUX.1-dev's weights, Chroma has others, "
        "and how well it follows has not been measured. Try `strength` above 1 and `end` up to 1 if edges are lost, less of both if the picture "
        "looks wrong; with `experts` disconnected from *CoLoGen Apply* and the task, Chroma reads the edges by itself.\n\nThe expert goes "
        "into `models/loras`. Chroma is Apache-2.0; EasyControl's files are for research use: read their licences.",
    )


WORKFLOWS = {"chroma_control": control}
