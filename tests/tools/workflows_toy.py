"""Example workflows for the set that ships: they run at once, on any machine."""

from canvas import Canvas, Node, Output
from cologen.prw.tasks import TASKS
from cologen.training.from_scratch.evaluate import CFG, STEPS
from cologen.training.toy.store import TOY_NAME

SCENES = {"inpaint": 9, "control": 6, "subject": 6, "edit": 4}
"""Which question each task's workflow asks."""
TOLD = 3
"""The question of workflows whose own words tell of its things."""
PHRASE = "the red square in the top right"
LEANS = (-1.0, -0.5, 0.0, 0.5, 1.0)


def sampled(
    canvas: Canvas, flux: Node, model: Output, prompts: dict, latent: Output, at: tuple[float, float], seed: int = 7
) -> Node:
    """From prompts to a picture, as the toy world was measured."""
    drawn = canvas.add(
        "KSampler", at, model=model, **prompts, latent_image=latent, seed=seed, steps=STEPS, cfg=CFG, sampler_name="euler",
        scheduler="simple",
    )  # fmt: skip
    return canvas.add("VAEDecode", (at[0], at[1] + 6), samples=drawn[0], vae=flux["VAE"])


class Toy:
    """What most of these begin with."""

    def __init__(self, canvas: Canvas, flux: Node | None = None, bank: Node | None = None, empty: bool = True):
        self.canvas = canvas
        self.flux = flux or canvas.add("CoLoGenLoadFlux", (0, 0), unet_name=TOY_NAME, vae_name=TOY_NAME)
        if bank is None:
            self.model = canvas.add("CoLoGenExperts", (1, 0), model=self.flux["MODEL"], bank_name=TOY_NAME)
        else:
            self.model = canvas.add("CoLoGenApply", (1, 0), model=self.flux["MODEL"], experts=bank["experts"])
        self.empty = self.words("", (1, 3), "No words")["CONDITIONING"] if empty else None

    def question(self, task: str, at: tuple[float, float], title: str = "", seed: int | None = None) -> Node:
        seed = SCENES[task] if seed is None else seed
        return self.canvas.add("CoLoGenToyQuestion", at, title, task=task, question_seed=seed)

    def words(self, text: str | Output, at: tuple[float, float], title: str = "Prompt") -> Node:
        return self.canvas.add("CLIPTextEncode", at, title, clip=self.flux["CLIP"], text=text)

    def task(self, node: str, at: tuple[float, float], prompts: Node | Output, title: str = "", **given) -> Node:
        """A node of a task, on a prompt or after another task's node."""
        chained = isinstance(prompts, Node)
        positive, negative = (prompts["positive"], prompts["negative"]) if chained else (prompts, self.empty)
        return self.canvas.add(node, at, title, positive=positive, negative=negative, vae=self.flux["VAE"], **given)

    def sample(self, told: Node, column: float, row: float = 0, latent: Output | None = None, seed: int = 7) -> Node:
        """From prompts to a picture."""
        prompts = dict(positive=told["positive"], negative=told["negative"])
        return sampled(self.canvas, self.flux, self.model[0], prompts, latent or told["latent"], (column, row), seed)

    def save_image(self, image: Output, at: tuple[float, float], name: str, title: str = "Drawn") -> None:
        self.canvas.add("SaveImage", at, title, box=(300, 300), images=image, filename_prefix=name)

    def preview(self, image: Output, at: tuple[float, float], title: str) -> None:
        self.canvas.add("PreviewImage", at, title, box=(300, 260), images=image)


def beside(toy: Toy, question: Node, column: float, row: float, told: tuple[float, float] = (2, 15)) -> None:
    toy.preview(question["source"], (column, row), "Given")
    toy.preview(question["answer"], (column, row + 5), "The right answer")
    toy.canvas.add("PreviewAny", told, "What was asked", box=(300, 120), source=question["prompt"])


def inpaint(canvas: Canvas) -> None:
    toy = Toy(canvas)
    question = toy.question("inpaint", (0, 8))
    told = toy.task(
        "CoLoGenInpaint", (2, 0), toy.words(question["prompt"], (1, 6))[0], image=question["source"], mask=question["mask"], grow=0
    )  # fmt: skip
    image = toy.sample(told, 3)
    whole = canvas.add(
        "CoLoGenPasteBack", (3, 8), drawn=image[0], original=question["source"], mask=question["mask"], grow=0, feather=0
    )  # fmt: skip
    toy.save_image(whole[0], (4, 0), "toy_inpaint")
    beside(toy, question, 4, 6)
    canvas.note(
        "## Inpaint\n\nNothing to download: *Toy Question* draws a picture with a grey hole and says what belongs there. "
        "Change its number for another scene.\n\n*Paste Back* returns every pixel outside the hole as it was.",
        (0, 13),
    )


def ground(canvas: Canvas) -> None:
    toy = Toy(canvas, empty=False)
    question = toy.question("edit", (0, 8), "A picture")
    told = canvas.add(
        "CoLoGenGround", (2, 0), clip=toy.flux["CLIP"], vae=toy.flux["VAE"], image=question["source"], phrase=PHRASE,
        form="mask", colour="pink",
    )  # fmt: skip
    image = toy.sample(told, 3)
    found = canvas.add(
        "CoLoGenReadGrounding", (4, 0), box=(300, 420), drawn=image[0], original=question["source"], form="mask", colour="pink"
    )  # fmt: skip
    toy.save_image(found["overlay"], (5, 0), "toy_ground", "Found")
    toy.preview(image[0], (5, 6), "Drawn")
    canvas.add("PreviewAny", (4, 8), "Where", box=(300, 120), source=found["text"])
    canvas.note(
        "## Ground: find it\n\nType what to find. FLUX draws the answer on the picture, *Read Grounding* reads it: as mask, "
        "as box, as text. The toy world wants the corner named where there are several things, and answers in lime or pink.",
        (0, 13),
    )


def control(canvas: Canvas) -> None:
    toy = Toy(canvas)
    question = toy.question("control", (0, 8))
    edges = canvas.add("CoLoGenControlMap", (1, 9), box=(300, 420), image=question["answer"], kind="canny")
    told = toy.task("CoLoGenControl", (2, 0), toy.words(question["prompt"], (1, 6))[0], map=edges[0], kind="canny")
    toy.save_image(toy.sample(told, 3)[0], (4, 0), "toy_control")
    toy.preview(edges[0], (4, 6), "The map")
    toy.preview(question["answer"], (4, 11), "Where it comes from")
    canvas.note(
        "## Control\n\n*Control Map* takes a picture's edges; the drawing follows them. The words say colours, the edges say "
        "what is where. Lines, depth and segmentations work alike.",
        (0, 13),
    )


def subject(canvas: Canvas) -> None:
    toy = Toy(canvas)
    question = toy.question("subject", (0, 8))
    told = toy.task("CoLoGenSubject", (2, 0), toy.words(question["prompt"], (1, 6))[0], image=question["source"])
    latent = canvas.add("EmptySD3LatentImage", (2, 8), width=64, height=64)
    toy.save_image(toy.sample(told, 3, latent=latent[0])[0], (4, 0), "toy_subject")
    beside(toy, question, 4, 6)
    canvas.note(
        "## Subject\n\nThe same thing in another place, on another ground. The words do not say what it looks like: that "
        "comes from the picture.",
        (0, 13),
    )


def edit(canvas: Canvas) -> None:
    toy = Toy(canvas)
    question = toy.question("edit", (0, 8))
    told = toy.task("CoLoGenEdit", (2, 0), toy.words(question["prompt"], (1, 6))[0], image=question["source"])
    toy.save_image(toy.sample(told, 3)[0], (4, 0), "toy_edit")
    beside(toy, question, 4, 6)
    canvas.add(
        "CoLoGenRouteMap",
        (3, 9),
        box=(340, 260),
        model=toy.model[0],
        conditioning=told["positive"],
        latent=told["latent"],
    )
    canvas.note(
        "## Edit\n\nAn instruction changes one thing and leaves the rest. The route map shows which expert reads the "
        "picture in which block of FLUX.",
        (0, 13),
    )


BY_TASK = {"inpaint": inpaint, "ground": ground, "control": control, "subject": subject, "edit": edit}
assert list(BY_TASK) == list(TASKS)


def inpaint_subject(canvas: Canvas) -> None:
    toy = Toy(canvas)
    hole, thing = (
        toy.question("inpaint", (0, 8), "A picture with a hole", TOLD),
        toy.question("subject", (0, 13), "A thing", TOLD),
    )
    words = toy.words("a circle at the bottom left", (1, 6))
    filled = toy.task(
        "CoLoGenInpaint", (2, 0), words[0], "What is round the hole", image=hole["source"], mask=hole["mask"], grow=0
    )
    both = toy.task("CoLoGenSubject", (2, 9), filled, "What it looks like", image=thing["source"])
    image = toy.sample(both, 3, latent=filled["latent"])
    whole = canvas.add(
        "CoLoGenPasteBack", (3, 8), drawn=image[0], original=hole["source"], mask=hole["mask"], grow=0, feather=0
    )
    toy.save_image(whole[0], (4, 0), "toy_inpaint_subject")
    toy.preview(hole["source"], (4, 6), "The hole")
    toy.preview(thing["source"], (4, 11), "The thing")
    canvas.add(
        "CoLoGenAttentionMap",
        (5, 0),
        "Who is read where",
        box=(340, 900),
        model=toy.model[0],
        conditioning=both["positive"],
        latent=image.values["samples"],
        image=whole[0],
    )
    canvas.note(
        "## A thing of one picture into the hole of another\n\nTask nodes chain: the prompts of the first are the second's, "
        "and both sources are read at once. The words only say a shape and a place; the colour comes from the second "
        "picture. No expert was trained on two sources.\n\n*Attention Map* shows which places of the drawn picture read "
        "which source: bright ones took most from it.",
        (0, 18),
    )


def control_subject(canvas: Canvas) -> None:
    toy = Toy(canvas)
    lines, thing = (
        toy.question("control", (0, 8), "A map", TOLD),
        toy.question("subject", (0, 13), "A thing", TOLD),
    )
    words = toy.words("a circle at the bottom left and a yellow square at the top right", (1, 6))
    black = canvas.add("SolidMask", (1, 9), value=0.0, width=64, height=64)
    white = canvas.add("SolidMask", (1, 12), value=1.0, width=32, height=32)
    corner = canvas.add(
        "MaskComposite", (1, 15), "Bottom left", destination=black[0], source=white[0], x=0, y=32, operation="add"
    )
    options = canvas.add("CoLoGenSourceOptions", (2, 13), "Only there", region=corner[0])
    followed = toy.task("CoLoGenControl", (2, 0), words[0], "Follow these lines", map=lines["source"], kind="canny")
    both = toy.task(
        "CoLoGenSubject", (2, 7), followed, "What one of them looks like", image=thing["source"], options=options[0]
    )
    toy.save_image(toy.sample(both, 3, latent=followed["latent"])[0], (4, 0), "toy_control_subject")
    toy.preview(lines["source"], (4, 6), "The map")
    toy.preview(thing["source"], (4, 11), "The thing")
    canvas.note(
        "## Two sources, one with a region\n\nThe map says where things are, everywhere. The subject says what one of them "
        "looks like, and only the pixels of its region may read it: white in the mask.",
        (0, 18),
    )


def ground_inpaint(canvas: Canvas) -> None:
    toy = Toy(canvas)
    question = toy.question("edit", (0, 8), "A picture")
    picture = question["source"]
    asked = canvas.add(
        "CoLoGenGround", (2, 0), clip=toy.flux["CLIP"], vae=toy.flux["VAE"], image=picture, phrase=PHRASE, form="mask",
        colour="pink",
    )  # fmt: skip
    found = canvas.add(
        "CoLoGenReadGrounding", (4, 0), box=(300, 420), drawn=toy.sample(asked, 3)[0], original=picture, form="mask",
        colour="pink",
    )  # fmt: skip
    words = toy.words("a big plain yellow circle in the top right", (4, 9))
    told = toy.task("CoLoGenInpaint", (5, 0), words[0], image=picture, mask=found["mask"], grow=4)
    image = toy.sample(told, 6)
    whole = canvas.add(
        "CoLoGenPasteBack", (6, 8), drawn=image[0], original=picture, mask=found["mask"], grow=4, feather=0
    )
    toy.save_image(whole[0], (7, 0), "toy_ground_inpaint")
    toy.preview(picture, (7, 6), "Given")
    canvas.note(
        "## Find it, then change it\n\nThe first half finds what you name and makes a mask of it; the second half fills that "
        "mask with what you say. Everything else stays as it was, pixel by pixel.",
        (0, 13),
    )


def routing(canvas: Canvas) -> None:
    toy = Toy(canvas)
    question = toy.question("edit", (0, 8))
    words, row = toy.words(question["prompt"], (1, 6)), None
    for i, lean in enumerate(LEANS):
        options = canvas.add("CoLoGenRouting", (2 + i, 0), f"Lean {lean:g}", lean=lean)
        told = toy.task("CoLoGenEdit", (2 + i, 4), words[0], image=question["source"], options=options[0])
        image = toy.sample(told, 2 + i, 11)[0]
        stitch = dict(direction="right", match_image_size=True, spacing_width=2, spacing_color="white")
        row = image if row is None else canvas.add("ImageStitch", (2 + i, 19), image1=row, image2=image, **stitch)[0]
    toy.save_image(row, (2 + len(LEANS), 0), "toy_routing", "From what to where")
    toy.preview(question["source"], (2 + len(LEANS), 6), "Given")
    canvas.note(
        "## Concept or place\n\n*Routing* leans the choice of experts in every block: to the left those that know what things "
        "are, to the right those that know where. In the middle the router decides by itself.",
        (0, 13),
    )


def best_of(canvas: Canvas) -> None:
    toy = Toy(canvas)
    question = toy.question("control", (0, 8), "A picture")
    lines = canvas.add("CoLoGenControlMap", (1, 6), image=question["answer"], kind="canny", model="auto")
    told = toy.task("CoLoGenControl", (2, 0), toy.empty, map=lines[0], kind="canny")
    six = canvas.add("EmptySD3LatentImage", (2, 8), "Six at once", width=64, height=64, batch_size=6)
    drawn = toy.sample(told, 3, latent=six[0])
    best = canvas.add(
        "CoLoGenBestOf", (4, 0), box=(340, 360), images=drawn[0], keep=1, by="colour", reference=question["answer"]
    )
    toy.save_image(best["best"], (5, 0), "toy_best_of", "The best")
    toy.preview(drawn[0], (5, 6), "Drawn")
    toy.preview(question["answer"], (5, 11), "Reference")
    canvas.note(
        "## The best of six\n\nNobody says which colours: each seed chooses its own. *Best Of* keeps the picture whose "
        "colours are nearest to the reference, and tells how far the others are.",
        (0, 13),
    )


def trained(canvas: Canvas, task: str, run: str, bank: Node | None = None, **more) -> Node:
    """One stage, and a picture drawn with what it learned."""
    flux = canvas.add("CoLoGenLoadFlux", (0, 0), unet_name=TOY_NAME, vae_name=TOY_NAME)
    data = canvas.add(
        "CoLoGenTrainingData", (0, 9), vae=flux["VAE"], clip=flux["CLIP"], source="built-in world", task=task, count=512
    )
    older = {} if bank is None else {"experts": bank["experts"]}
    stage = canvas.add(
        "CoLoGenTrainStage", (1, 9), model=flux["MODEL"], data=data["data"], task=task, run=run, iterations=60, batch=16,
        rank=32, alpha=64.0, rate=2e-3, time_shift=4.0, micro=0, checkpointing=False, sample_every=30, **older, **more,
    )  # fmt: skip
    canvas.add("CoLoGenUsagePlot", (2, 18), loss=stage["loss"])
    toy = Toy(canvas, flux, stage)
    if "features" in more:
        toy.model = canvas.add("CoLoGenFeatures", (2, 0), model=toy.model[0], features=stage["features"])
    question = toy.question(task, (2, 9))
    words = toy.words(question["prompt"], (2, 13))
    told = toy.task(NODES[task], (3, 0), words[0], image=question["source"])
    latent = canvas.add("EmptySD3LatentImage", (3, 8), width=64, height=64)
    toy.save_image(toy.sample(told, 4, latent=latent[0])[0], (5, 0), run)
    toy.preview(stage["samples"], (5, 6), "Drawn on the way")
    beside(toy, question, 5, 11, (2, 19))
    return stage


NODES = {"subject": "CoLoGenSubject", "edit": "CoLoGenEdit"}


def train_stage(canvas: Canvas) -> None:
    trained(canvas, "edit", "toy_edit")
    canvas.note(
        "## Train one expert\n\nSixty iterations take a minute or two and show how it goes; some hundreds learn the task. "
        "Cancel keeps what was learned, queue again goes on. The run is in `output/cologen/toy_edit`.\n\nFor your own "
        "pictures choose *folder* in the data node.",
        (-1, 0),
    )


def train_own(canvas: Canvas) -> None:
    bank = canvas.add("CoLoGenLoadExperts", (0, 5), bank_name=TOY_NAME)
    stage = trained(canvas, "subject", "toy_own", bank, name="mine", start="subject")
    canvas.add("CoLoGenInspectExperts", (3, 14), experts=stage["experts"])
    canvas.add("CoLoGenSaveExperts", (4, 14), "Six in one bank", experts=stage["experts"], name="toy_with_mine")
    canvas.note(
        "## Your own expert beside the five\n\nThe five that ship stay as they are; a sixth begins as a copy of one of them "
        "and learns from your data. Its router chooses among all six. The saved bank is listed in *Load Experts*.",
        (-1, 0),
    )


def train_features(canvas: Canvas) -> None:
    trained(canvas, "subject", "toy_features", features="self")
    canvas.note(
        "## An expert that also says what it sees\n\nWith `features` *self* the expert learns to tell what the VAE sees in the "
        "right answer, and to read its own last guess of that. *CoLoGen Features* lets the picture read it, step by step; "
        "`weight` 0 draws the picture without.\n\nThe features lie in `output/cologen/toy_features/stages`: choose them as "
        "`file`, and nothing has to be trained.",
        (-1, 0),
        (360, 260),
    )


WORKFLOWS = {
    **{f"toy_{task}": build for task, build in BY_TASK.items()},
    "toy_inpaint_with_subject": inpaint_subject,
    "toy_control_and_subject": control_subject,
    "toy_ground_then_inpaint": ground_inpaint,
    "toy_routing": routing,
    "toy_best_of": best_of,
    "toy_train_stage": train_stage,
    "toy_train_own_expert": train_own,
    "toy_train_features": train_features,
}
