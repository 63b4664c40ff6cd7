"""Example workflows of one's own subject: photos, training and a picture of it, with the toy set and with FLUX.1-dev."""

from canvas import Canvas, Node, Output
from cologen.training.toy.store import TOY_NAME
from workflows_flux import Stock
from workflows_toy import batch, sampled

THING = 14
"""A question whose source and answer show a circle of stripes."""
NOUN, TOLD = "circle", "a [circle] at the top left, on a sky ground"
KNOBS = dict(
    noun=NOUN, caption="a {}", prompts=TOLD.replace("[", "").replace("]", ""), iterations=100, batch=8, rank=8, alpha=8.0,
    rate=1e-3, resolution=64, token_rate=5.0, time_shift=2.0, micro=0, checkpointing=False, sample_every=50,
)  # fmt: skip
"""As the toy world's recipe has them."""


def toy_photos(canvas: Canvas) -> Output:
    """One thing twice, and both as a mirror shows them."""
    question = canvas.add("CoLoGenToyQuestion", "One thing, twice", task="subject", question_seed=THING)
    two = batch(canvas, question["source"], question["answer"])
    other = canvas.add("ImageFlip", image=two, flip_method="y-axis: horizontally")[0]
    return batch(canvas, two, other, title="Four photos")


def trained(canvas: Canvas, flux: Node, run: str) -> Node:
    coders = dict(model=flux["MODEL"], vae=flux["VAE"], clip=flux["CLIP"])
    return canvas.add("CoLoGenTrainSubject", **coders, photos=toy_photos(canvas), run=run, **KNOBS)


def own(canvas: Canvas, flux: Node, concept: Output, strength: float = 1.0, text: str = TOLD) -> Node:
    """A picture of the subject by the stock sampler."""
    words = canvas.add("CoLoGenMarkedPrompt", clip=flux["CLIP"], text=text)
    none = canvas.add("CLIPTextEncode", "No words", clip=flux["CLIP"], text="")
    given = dict(model=flux["MODEL"], concept=concept, strength=strength)
    told = canvas.add("CoLoGenConceptTokens", conditioning=words[0], **given)
    latent = canvas.add("EmptySD3LatentImage", width=64, height=64)
    prompts = dict(positive=told["CONDITIONING"], negative=none[0])
    return sampled(canvas, flux["VAE"], told["MODEL"], prompts, latent[0])


def toy_train(canvas: Canvas) -> None:
    flux = canvas.add("CoLoGenLoadFlux", unet_name=TOY_NAME, vae_name=TOY_NAME)
    mine = trained(canvas, flux, "toy_own_subject")
    drawn = own(canvas, flux, mine["concept"])
    canvas.add("SaveImage", "Drawn", images=drawn[0], filename_prefix="toy_train_subject")
    canvas.add("PreviewImage", "Photos", images=mine.values["photos"])
    canvas.note(
        "## A subject of your own\n\n*Train Subject* learns the thing of four photos in a minute or so: no prompt says that "
        "it has stripes, or which colour. *Concept Tokens* puts it beside the word in brackets, wherever the prompt sends it; "
        "`strength` 0 draws some other circle.\n\nThe concept is kept in `output/cologen/toy_own_subject`: choose it as "
        "`file`, and nothing has to be trained.",
    )


def dev_train(canvas: Canvas) -> None:
    dev = Stock(canvas)
    titles = ("A photo of it", "Another place, another pose", "And another")
    photos = batch(canvas, *(dev.picture(title)["IMAGE"] for title in titles))
    given = dict(model=dev.flux["MODEL"], vae=dev.vae, clip=dev.clip["CLIP"], photos=photos)
    trained = canvas.add("CoLoGenTrainSubject", **given, noun="dog", run="my_dog")
    words = dev.words("photo of a [dog] surfing a wave at sunset", kind="CoLoGenMarkedPrompt")
    told = canvas.add("CoLoGenConceptTokens", conditioning=words, model=dev.flux["MODEL"], concept=trained["concept"])
    none = canvas.add("ConditioningZeroOut", conditioning=words)
    dev.model = told
    dev.save_image(dev.sample(dict(positive=told["CONDITIONING"], negative=none[0]), dev.square()), "my_dog")
    dev.note(
        "## A subject of your own on FLUX.1-dev\n\nGive 3 to 10 photos of it (*Batch Images* takes more), say in `noun` what "
        "it is, queue. Cancel keeps what was learned, queue again goes on. The samples show how far it is.\n\nA finished run "
        "is not trained again: change the prompt and queue. Later, choose the run as `file` in *Concept Tokens*."
    )


WORKFLOWS = {"toy_train_subject": toy_train, "flux_dev_train_subject": dev_train}
