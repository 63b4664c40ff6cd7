"""Example workflows for the set that ships: they run at once, on any machine."""

from collections.abc import Callable
from functools import partial

from canvas import Canvas, Node, Output
from cologen.prw.tasks import TASKS
from cologen.training.from_scratch.evaluate import CFG, STEPS
from cologen.training.toy.store import TOY_NAME
from layout import ASKED, GIVEN, MODEL, NOTES, RESULT, TRAINING
from subgraph import Subgraph

SCENES = {"inpaint": 9, "control": 6, "subject": 6, "edit": 4}
"""Which question each task's workflow asks."""
TOLD = 3
"""The question of workflows whose own words tell of its things."""
PHRASE = "the red square in the top right"
INSTRUCTION = "turn the green thing at the bottom right into a circle"
"""What the question of the edit's workflow asks."""
ENLARGED = 6
"""Pixels that a drawn one is shown as, across and down."""
LEANING = "The same five times"
LEANS = (-1.0, -0.5, 0.0, 0.5, 1.0)
TASK_NOTES = {
    "inpaint": "## Inpaint\n\nNothing to download: *Toy Question* draws a picture with a grey hole and says what belongs there. "
    "Change its number for another scene.\n\n*Paste Back* returns every pixel outside the hole as it was.",
    "ground": "## Ground: find it\n\nType what to find. FLUX draws the answer on the picture, *Read Grounding* reads it: as mask, "
    "as box, as text. The toy world wants the corner named where there are several things, and answers in lime or pink.",
    "control": "## Control\n\n*Control Map* takes a picture's edges; the drawing follows them. The words say colours, the edges say "
    "what is where. Lines, depth and segmentations work alike.",
    "subject": "## Subject\n\nThe same thing in another place, on another ground. The words do not say what it looks like: that "
    "comes from the picture.",
    "edit": "## Edit\n\nAn instruction changes one thing and leaves the rest. Type another one: *make the green thing at the bottom "
    "right red*, *remove the green thing at the bottom right*.\n\nThe route map shows which expert reads the picture in which "
    "block of FLUX.",
}
"""What each task's workflow says of itself."""


def sampled(canvas: Canvas, vae: Output, model: Output, prompts: Node | dict, latent: Output, seed: int = 7) -> Node:
    """From prompts to a picture, as the toy world was measured."""
    drawn = canvas.add(
        "KSampler", model=model, positive=prompts["positive"], negative=prompts["negative"], latent_image=latent, seed=seed, steps=STEPS, cfg=CFG, sampler_name="euler",
        scheduler="simple",
    )  # fmt: skip
    return canvas.add("VAEDecode", samples=drawn[0], vae=vae)


def batch(canvas: Canvas, *images: Output, title: str = "", section: str = "") -> Output:
    given = {f"images.image{i}": image for i, image in enumerate(images)}
    return canvas.add("BatchImagesNode", title, section=section, **given)[0]


class Toy:
    """What most of these begin with."""

    prefix, world, side, scenes = "toy", TOY_NAME, 64, SCENES
    enlarged, how = ENLARGED, "nearest-exact"
    phrase, colour, instruction, notes = PHRASE, "pink", INSTRUCTION, TASK_NOTES
    guided: tuple[str, ...] = ()
    """Nodes whose source the negative prompt does not read."""

    def __init__(self, canvas: Canvas, flux: Node | None = None, bank: Node | None = None, empty: bool = True):
        self.canvas = canvas
        self.flux = flux or canvas.add("CoLoGenLoadFlux", unet_name=self.world, vae_name=self.world)
        if bank is None:
            self.model = canvas.add("CoLoGenExperts", model=self.flux["MODEL"], bank_name=self.world)
        else:
            self.model = canvas.add("CoLoGenApply", section=ASKED, model=self.flux["MODEL"], experts=bank["experts"])
        self.empty = self.words("", "No words")["CONDITIONING"] if empty else None

    def question(self, task: str, title: str = "", seed: int | None = None) -> Node:
        seed = self.scenes[task] if seed is None else seed
        return self.canvas.add("CoLoGenToyQuestion", title, task=task, question_seed=seed, world=self.world)

    def words(self, text: str | Output, title: str = "Prompt") -> Node:
        return self.canvas.add("CLIPTextEncode", title, clip=self.flux["CLIP"], text=text)

    def task(self, node: str, prompts: Node | Output, title: str = "", **given) -> Node:
        """A node of a task, on a prompt or after another task's node."""
        chained = isinstance(prompts, Node)
        positive, negative = (prompts["positive"], prompts["negative"]) if chained else (prompts, self.empty)
        both = {"positive": positive} if node in self.guided else {"positive": positive, "negative": negative}
        return self.canvas.add(node, title, **both, vae=self.flux["VAE"], **given)

    def sample(self, told: Node | dict, latent: Output | None = None, seed: int = 7) -> Node:
        """From prompts to a picture."""
        if isinstance(told, Node) and told.kind in self.guided:
            prompts = {"positive": told["positive"], "negative": self.empty}
        else:
            prompts = told
        return sampled(self.canvas, self.flux["VAE"], self.model[0], prompts, latent or told["latent"], seed)

    def save_image(self, image: Output, name: str, title: str = "Drawn") -> None:
        """What a built-in set draws is small: it is shown and saved enlarged."""
        size = dict(upscale_method=self.how, scale_by=float(self.enlarged))
        enlarged = self.canvas.add("ImageScaleBy", section=RESULT, image=image, **size)[0]
        self.canvas.add("SaveImage", title, images=enlarged, filename_prefix=name)

    def preview(self, image: Output, title: str) -> None:
        self.canvas.add("PreviewImage", title, images=image)


def beside(toy: Toy, question: Node) -> None:
    toy.preview(question["source"], "Given")
    toy.preview(question["answer"], "The right answer")
    toy.canvas.add("PreviewAny", "What was asked", source=question["prompt"])


def inpaint(toy: Toy) -> None:
    question = toy.question("inpaint")
    hole = dict(mask=question["mask"], grow=0)
    told = toy.task("CoLoGenInpaint", toy.words(question["prompt"])[0], image=question["source"], **hole)
    image = toy.sample(told)
    whole = toy.canvas.add(
        "CoLoGenPasteBack", drawn=image[0], original=question["source"], **hole, feather=0
    )  # fmt: skip
    toy.save_image(whole[0], f"{toy.prefix}_inpaint")
    toy.canvas.compare(question["source"], whole[0])
    beside(toy, question)


def ground(toy: Toy) -> None:
    question = toy.question("edit", "A picture")
    coders, answer = dict(clip=toy.flux["CLIP"], vae=toy.flux["VAE"]), dict(form="mask", colour=toy.colour)
    told = toy.canvas.add("CoLoGenGround", **coders, image=question["source"], phrase=toy.phrase, **answer)
    image = toy.sample(told)
    found = toy.canvas.add("CoLoGenReadGrounding", drawn=image[0], original=question["source"], **answer)
    toy.save_image(found["overlay"], f"{toy.prefix}_ground", "Found")
    toy.preview(image[0], "Drawn")
    toy.canvas.add("PreviewAny", "Where", source=found["text"])


def control(toy: Toy) -> None:
    question = toy.question("control")
    edges = toy.canvas.add("CoLoGenControlMap", image=question["answer"], kind="canny")
    told = toy.task("CoLoGenControl", toy.words(question["prompt"])[0], map=edges[0], kind="canny")
    toy.save_image(toy.sample(told)[0], f"{toy.prefix}_control")
    toy.preview(edges[0], "The map")
    toy.preview(question["answer"], "Where it comes from")


def subject(toy: Toy) -> None:
    question = toy.question("subject")
    told = toy.task("CoLoGenSubject", toy.words(question["prompt"])[0], image=question["source"])
    latent = toy.canvas.add("EmptySD3LatentImage", width=toy.side, height=toy.side)
    toy.save_image(toy.sample(told, latent=latent[0])[0], f"{toy.prefix}_subject")
    beside(toy, question)


def edit(toy: Toy) -> None:
    question = toy.question("edit")
    told = toy.task("CoLoGenEdit", toy.words(toy.instruction, "Prompt: type here")[0], image=question["source"])
    image = toy.sample(told)[0]
    toy.save_image(image, f"{toy.prefix}_edit")
    toy.canvas.compare(question["source"], image)
    toy.preview(question["source"], "Given")
    toy.canvas.add("CoLoGenRouteMap", model=toy.model[0], conditioning=told["positive"], latent=told["latent"])


BY_TASK = {"inpaint": inpaint, "ground": ground, "control": control, "subject": subject, "edit": edit}
assert list(BY_TASK) == list(TASKS)


def show_task(world: type[Toy], task: str, canvas: Canvas) -> None:
    """Builds a task's workflow on a world."""
    toy = world(canvas, empty=task != "ground")
    BY_TASK[task](toy)
    canvas.note(world.notes[task])


def list_tasks(world: type[Toy]) -> dict[str, Callable[[Canvas], None]]:
    """Lists a world's workflows, one for each task that it has a note for."""
    return {f"{world.prefix}_{task}": partial(show_task, world, task) for task in world.notes}


def inpaint_subject(canvas: Canvas) -> None:
    toy = Toy(canvas)
    hole, thing = (
        toy.question("inpaint", "A picture with a hole", TOLD),
        toy.question("subject", "A thing", TOLD),
    )
    words = toy.words("a circle at the bottom left")
    filled = toy.task(
        "CoLoGenInpaint", words[0], "What is round the hole", image=hole["source"], mask=hole["mask"], grow=0
    )
    both = toy.task("CoLoGenSubject", filled, "What it looks like", image=thing["source"])
    image = toy.sample(both, latent=filled["latent"])
    whole = canvas.add(
        "CoLoGenPasteBack", drawn=image[0], original=hole["source"], mask=hole["mask"], grow=0, feather=0
    )
    toy.save_image(whole[0], "toy_inpaint_subject")
    toy.preview(hole["source"], "The hole")
    toy.preview(thing["source"], "The thing")
    canvas.add(
        "CoLoGenAttentionMap", "Who is read where", model=toy.model[0], conditioning=both["positive"],
        latent=image.values["samples"], image=whole[0],
    )  # fmt: skip
    canvas.note(
        "## A thing of one picture into the hole of another\n\nTask nodes chain: the prompts of the first are the second's, "
        "and both sources are read at once. The words only say a shape and a place; the colour comes from the second "
        "picture. No expert was trained on two sources.\n\n*Attention Map* shows which places of the drawn picture read "
        "which source: bright ones took most from it.",
    )


def control_subject(canvas: Canvas) -> None:
    toy = Toy(canvas)
    lines, thing = (
        toy.question("control", "A map", TOLD),
        toy.question("subject", "A thing", TOLD),
    )
    words = toy.words("a circle at the bottom left and a yellow square at the top right")
    black = canvas.add("SolidMask", value=0.0, width=64, height=64)
    white = canvas.add("SolidMask", value=1.0, width=32, height=32)
    corner = canvas.add(
        "MaskComposite", "Bottom left", destination=black[0], source=white[0], x=0, y=32, operation="add"
    )
    options = canvas.add("CoLoGenSourceOptions", "Only there", region=corner[0])
    followed = toy.task("CoLoGenControl", words[0], "Follow these lines", map=lines["source"], kind="canny")
    both = toy.task(
        "CoLoGenSubject", followed, "What one of them looks like", image=thing["source"], options=options[0]
    )
    toy.save_image(toy.sample(both, latent=followed["latent"])[0], "toy_control_subject")
    toy.preview(lines["source"], "The map")
    toy.preview(thing["source"], "The thing")
    canvas.note(
        "## Two sources, one with a region\n\nThe map says where things are, everywhere. The subject says what one of them "
        "looks like, and only the pixels of its region may read it: white in the mask.",
    )


def ground_inpaint(canvas: Canvas) -> None:
    canvas.blocks = ((NOTES,), (MODEL, GIVEN), ("Find it",), ("Change it",), (RESULT,))
    toy = Toy(canvas, empty=False)
    question = toy.question("edit", "A picture")
    picture, canvas.section = question["source"], "Find it"
    asked = canvas.add(
        "CoLoGenGround", clip=toy.flux["CLIP"], vae=toy.flux["VAE"], image=picture, phrase=PHRASE, form="mask",
        colour="pink",
    )  # fmt: skip
    found = canvas.add(
        "CoLoGenReadGrounding", drawn=toy.sample(asked)[0], original=picture, form="mask",
        colour="pink",
    )  # fmt: skip
    canvas.section = "Change it"
    toy.empty = toy.words("", "No words")[0]
    words = toy.words("a big plain yellow circle in the top right")
    told = toy.task("CoLoGenInpaint", words[0], image=picture, mask=found["mask"], grow=4)
    image = toy.sample(told)
    whole = canvas.add("CoLoGenPasteBack", drawn=image[0], original=picture, mask=found["mask"], grow=4, feather=0)
    canvas.section = ""
    toy.save_image(whole[0], "toy_ground_inpaint")
    toy.preview(picture, "Given")
    canvas.note(
        "## Find it, then change it\n\nThe first half finds what you name and makes a mask of it; the second half fills that "
        "mask with what you say. Everything else stays as it was, pixel by pixel.",
    )


def draw_leaning(toy: Toy) -> Subgraph:
    """An edit whose experts lean."""
    lean = toy.canvas.info["CoLoGenRouting"]["input"]["required"]["lean"]
    sockets = dict(model="MODEL", positive="CONDITIONING", negative="CONDITIONING", vae="VAE", image="IMAGE")
    inside = Subgraph(toy.canvas, "Draw leaning", {name: [kind] for name, kind in sockets.items()} | {"lean": lean})
    add = inside.canvas.add
    options = add("CoLoGenRouting", lean=inside["lean"])
    prompts = {name: inside[name] for name in ("positive", "negative")}
    told = add("CoLoGenEdit", **prompts, vae=inside["vae"], image=inside["image"], options=options[0])
    inside.outputs["image"] = sampled(inside.canvas, inside["vae"], inside["model"], told, told["latent"])[0]
    return inside


def routing(canvas: Canvas) -> None:
    toy = Toy(canvas)
    question = toy.question("edit")
    words = toy.words(question["prompt"])
    leaning = draw_leaning(toy)
    given = dict(
        model=toy.model[0], positive=words[0], negative=toy.empty, vae=toy.flux["VAE"], image=question["source"]
    )
    canvas.blocks = ((NOTES,), (MODEL, GIVEN), (ASKED,), (LEANING,), (RESULT,))
    drawn = [leaning.add_to(canvas, f"Lean {lean:g}", LEANING, **given, lean=lean)[0] for lean in LEANS]
    toy.save_image(batch(canvas, *drawn, section=RESULT), "toy_routing", "From what to where")
    toy.preview(question["source"], "Given")
    canvas.note(
        "## Concept or place\n\n*Routing* leans the choice of experts in every block: to the left those that know what things "
        "are, to the right those that know where. In the middle the router decides by itself.",
    )


def best_of(canvas: Canvas) -> None:
    toy = Toy(canvas)
    question = toy.question("control", "A picture")
    lines = canvas.add("CoLoGenControlMap", image=question["answer"], kind="canny", model="auto")
    told = toy.task("CoLoGenControl", toy.empty, map=lines[0], kind="canny")
    six = canvas.add("EmptySD3LatentImage", "Six at once", width=64, height=64, batch_size=6)
    drawn = toy.sample(told, latent=six[0])
    best = canvas.add("CoLoGenBestOf", images=drawn[0], keep=1, by="colour", reference=question["answer"])
    toy.save_image(best["best"], "toy_best_of", "The best")
    toy.preview(drawn[0], "Drawn")
    toy.preview(question["answer"], "Reference")
    canvas.note(
        "## The best of six\n\nNobody says which colours: each seed chooses its own. *Best Of* keeps the picture whose "
        "colours are nearest to the reference, and tells how far the others are.",
    )


def trained(canvas: Canvas, task: str, run: str, bank: Node | None = None, **more) -> Node:
    """One stage, and a picture drawn with what it learned."""
    flux = canvas.add("CoLoGenLoadFlux", unet_name=TOY_NAME, vae_name=TOY_NAME)
    data = canvas.add(
        "CoLoGenTrainingData", vae=flux["VAE"], clip=flux["CLIP"], source="built-in world", task=task, count=512
    )
    older = {} if bank is None else {"experts": bank["experts"]}
    stage = canvas.add(
        "CoLoGenTrainStage", model=flux["MODEL"], data=data["data"], task=task, run=run, iterations=60, batch=16,
        rank=32, alpha=64.0, rate=2e-3, time_shift=4.0, micro=0, checkpointing=False, sample_every=30, **older, **more,
    )  # fmt: skip
    canvas.add("CoLoGenUsagePlot", section=TRAINING, loss=stage["loss"])
    toy = Toy(canvas, flux, stage)
    if "features" in more:
        toy.model = canvas.add("CoLoGenFeatures", section=ASKED, model=toy.model[0], features=stage["features"])
    question = toy.question(task)
    words = toy.words(question["prompt"])
    told = toy.task(NODES[task], words[0], image=question["source"])
    latent = canvas.add("EmptySD3LatentImage", width=64, height=64)
    toy.save_image(toy.sample(told, latent=latent[0])[0], run)
    canvas.add("PreviewImage", "Drawn on the way", section=TRAINING, images=stage["samples"])
    beside(toy, question)
    return stage


NODES = {"subject": "CoLoGenSubject", "edit": "CoLoGenEdit"}


def train_stage(canvas: Canvas) -> None:
    trained(canvas, "edit", "toy_edit")
    canvas.note(
        "## Train one expert\n\nSixty iterations take a minute or two and show how it goes; some hundreds learn the task. "
        "Cancel keeps what was learned, queue again goes on. The run is in `output/cologen/toy_edit`.\n\nFor your own "
        "pictures choose *folder* in the data node.",
    )


def train_own(canvas: Canvas) -> None:
    bank = canvas.add("CoLoGenLoadExperts", bank_name=TOY_NAME)
    stage = trained(canvas, "subject", "toy_own", bank, name="mine", start="subject")
    canvas.add("CoLoGenInspectExperts", experts=stage["experts"])
    canvas.add("CoLoGenSaveExperts", "Six in one bank", experts=stage["experts"], name="toy_with_mine")
    canvas.note(
        "## Your own expert beside the five\n\nThe five that ship stay as they are; a sixth begins as a copy of one of them "
        "and learns from your data. Its router chooses among all six. The saved bank is listed in *Load Experts*.",
    )


def train_features(canvas: Canvas) -> None:
    trained(canvas, "subject", "toy_features", features="self")
    canvas.note(
        "## An expert that also says what it sees\n\nWith `features` *self* the expert learns to tell what the VAE sees in the "
        "right answer, and to read its own last guess of that. *CoLoGen Features* lets the picture read it, step by step; "
        "`weight` 0 draws the picture without.\n\nThe features lie in `output/cologen/toy_features/stages`: choose them as "
        "`file`, and nothing has to be trained.",
    )


WORKFLOWS = {
    **list_tasks(Toy),
    "toy_inpaint_with_subject": inpaint_subject,
    "toy_control_and_subject": control_subject,
    "toy_ground_then_inpaint": ground_inpaint,
    "toy_routing": routing,
    "toy_best_of": best_of,
    "toy_train_stage": train_stage,
    "toy_train_own_expert": train_own,
    "toy_train_features": train_features,
}
