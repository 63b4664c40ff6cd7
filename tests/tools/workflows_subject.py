"""Example workflows of one's own subject: photos, training and a picture of it, with the toy set and with FLUX.1-dev."""

from canvas import Canvas, Node, Output
from cologen.training.toy.store import TOY_NAME
from workflows_flux import Stock
from workflows_toy import sampled

THING = 14
"""A question whose source and answer show a circle of stripes."""
NOUN, TOLD = "circle", "a [circle] at the top left, on a sky ground"
KNOBS = dict(
    noun=NOUN, caption="a {}", prompts=TOLD.replace("[", "").replace("]", ""), iterations=100, batch=8, rank=8, alpha=8.0,
    rate=1e-3, resolution=64, token_rate=5.0, time_shift=2.0, micro=0, checkpointing=False, sample_every=50,
)  # fmt: skip
"""As the toy world's recipe has them."""


def toy_photos(canvas: Canvas, row: float = 8) -> Output:
    """One thing twice, and both as a mirror shows them."""
    question = canvas.add("CoLoGenToyQuestion", (0, row), "One thing, twice", task="subject", question_seed=THING)
    two = canvas.add("ImageBatch", (0, row + 5), image1=question["source"], image2=question["answer"])[0]
    other = canvas.add("ImageFlip", (0, row + 7), image=two, flip_method="y-axis: horizontally")[0]
    return canvas.add("ImageBatch", (0, row + 9), "Four photos", image1=two, image2=other)[0]


def trained(canvas: Canvas, flux: Node, run: str) -> Node:
    coders = dict(model=flux["MODEL"], vae=flux["VAE"], clip=flux["CLIP"])
    return canvas.add("CoLoGenTrainSubject", (1, 8), **coders, photos=toy_photos(canvas), run=run, **KNOBS)


def own(
    canvas: Canvas, flux: Node, concept: Output, column: float = 0, strength: float = 1.0, text: str = TOLD
) -> Node:
    """A picture of the subject by the stock sampler."""
    words = canvas.add("CoLoGenMarkedPrompt", (column, 0), clip=flux["CLIP"], text=text)
    none = canvas.add("CLIPTextEncode", (column, 4), "No words", clip=flux["CLIP"], text="")
    given = dict(model=flux["MODEL"], concept=concept, strength=strength)
    told = canvas.add("CoLoGenConceptTokens", (column, 8), conditioning=words[0], **given)
    latent = canvas.add("EmptySD3LatentImage", (column, 12), width=64, height=64)
    prompts = dict(positive=told["CONDITIONING"], negative=none[0])
    return sampled(canvas, flux, told["MODEL"], prompts, latent[0], (column + 1, 0))


def toy_train(canvas: Canvas) -> None:
    flux = canvas.add("CoLoGenLoadFlux", (0, 0), unet_name=TOY_NAME, vae_name=TOY_NAME)
    mine = trained(canvas, flux, "toy_own_subject")
    drawn = own(canvas, flux, mine["concept"], 2)
    canvas.add("SaveImage", (4, 0), "Drawn", box=(300, 300), images=drawn[0], filename_prefix="toy_train_subject")
    canvas.add("PreviewImage", (4, 6), "Photos", box=(300, 260), images=mine.values["photos"])
    canvas.note(
        "## A subject of your own\n\n*Train Subject* learns the thing of four photos in a minute or so: no prompt says that "
        "it has stripes, or which colour. *Concept Tokens* puts it beside the word in brackets, wherever the prompt sends it; "
        "`strength` 0 draws some other circle.\n\nThe concept is kept in `output/cologen/toy_own_subject`: choose it as "
        "`file`, and nothing has to be trained.",
        (-1, 0),
        (360, 260),
    )


def dev_train(canvas: Canvas) -> None:
    dev = Stock(canvas)
    photos = dev.picture("A photo of it", 10)["IMAGE"]
    for i in range(2):
        more = dev.picture("Another place, another pose", 16 + 6 * i)["IMAGE"]
        photos = canvas.add("ImageBatch", (2, 20 + 3 * i), image1=photos, image2=more)[0]
    given = dict(model=dev.flux["MODEL"], vae=dev.vae, clip=dev.clip["CLIP"], photos=photos)
    trained = canvas.add("CoLoGenTrainSubject", (2, 3), **given, noun="dog", run="my_dog")
    words = dev.words("photo of a [dog] surfing a wave at sunset", kind="CoLoGenMarkedPrompt")
    told = canvas.add(
        "CoLoGenConceptTokens", (3, 12), conditioning=words, model=dev.flux["MODEL"], concept=trained["concept"]
    )
    none = canvas.add("ConditioningZeroOut", (3, 17), conditioning=words)
    dev.model = told
    dev.save_image(dev.sample(dict(positive=told["CONDITIONING"], negative=none[0]), dev.square()), "my_dog")
    dev.note(
        "## A subject of your own on FLUX.1-dev\n\nGive 3 to 10 photos of it (*Batch Images* takes more), say in `noun` what "
        "it is, queue. Cancel keeps what was learned, queue again goes on. The samples show how far it is.\n\nA finished run "
        "is not trained again: change the prompt and queue. Later, choose the run as `file` in *Concept Tokens*."
    )


WORKFLOWS = {"toy_train_subject": toy_train, "flux_dev_train_subject": dev_train}
