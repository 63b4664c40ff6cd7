"""The graphs of the help pages' pictures: what each previews, by the toy set, says what its node does."""

from collections.abc import Callable
from dataclasses import asdict

from canvas import Node, Output
from cologen.prw.personalization.shared_guidance import WAYS, SharedStepSettings
from cologen.training.from_scratch.evaluate import CFG
from workflows_inpaint import draw_right_half
from workflows_more import RECIPE
from workflows_sampling import PLAIN, branch_map, branched, guided, marked, subject
from workflows_subject import TOLD, own, trained
from workflows_toy import PHRASE, Toy

TURN = 4
"""The edit that knobs are shown on: turn the green thing at the bottom right into a circle."""
AUTHORS = ("switching", "mixed", "multi-stage", "masked")
"""The guider's ways that its authors have."""
SHOWN_WAYS = {"concept alone": SharedStepSettings(0.0, 1.0, 1.0), **{name: WAYS[name] for name in AUTHORS}}
SCENES = (
    TOLD,
    "a [circle] at the bottom left, on a sand ground",
    "a [circle] at the bottom right, a green square at the top left, on a sky ground",
)
"""Of the subject; no photo shows one of them."""
RUN = dict(micro=0, checkpointing=False, validate_every=20, sample_every=0)

GIVEN: dict[str, Callable[[Node], dict[str, Output | str | int]]] = {
    "CoLoGenEdit": lambda question: dict(image=question["source"]),
    "CoLoGenControl": lambda question: dict(map=question["source"], kind="canny"),
    "CoLoGenSubject": lambda question: dict(image=question["source"]),
    "CoLoGenInpaint": lambda question: dict(image=question["source"], mask=question["mask"], grow=0),
}


def asked(toy: Toy, task: str, seed: int) -> Node:
    return toy.canvas.add("CoLoGenToyQuestion", task=task, question_seed=seed)


def told(toy: Toy, node: str, seed: int, **more) -> tuple[Node, Node]:
    """A question, and the prompts of the task's node that carry it."""
    question = asked(toy, node.removeprefix("CoLoGen").lower(), seed)
    words = toy.words(question["prompt"])
    return question, toy.task(node, words[0], **GIVEN[node](question), **more)


def picture(toy: Toy, prompts: Node) -> Output:
    latent = None if "latent" in prompts.info["output_name"] else empty(toy)
    return toy.sample(prompts, latent=latent)[0]


def empty(toy: Toy) -> Output:
    return toy.canvas.add("EmptySD3LatentImage", width=64, height=64)[0]


def answers(node: str, *seeds: int) -> Callable[[Toy], None]:
    def build(toy: Toy) -> None:
        for seed in seeds:
            question, prompts = told(toy, node, seed)
            toy.preview(question["source"], "given")
            toy.preview(picture(toy, prompts), "drawn")

    return build


def paste_back(toy: Toy) -> None:
    """Something else than the answer in the answer's place."""
    question = asked(toy, "inpaint", 12)
    original, hole = question["answer"], dict(mask=question["mask"], grow=0)
    words = toy.words("big plain green triangle at the bottom right")
    drawn = picture(toy, toy.task("CoLoGenInpaint", words[0], image=original, keep_rest=False, **hole))
    whole = toy.canvas.add("CoLoGenPasteBack", drawn=drawn, original=original, feather=0, **hole)
    for image, title in ((original, "original"), (drawn, "drawn"), (whole[0], "pasted back")):
        toy.preview(image, title)


def crop_and_stitch(toy: Toy) -> None:
    cut, drawn, back = draw_right_half(toy)
    shown = {"preview": cut["preview"], "image": cut["image"], "drawn": drawn, "stitched": back}
    for title, image in shown.items():
        toy.preview(image, title)


def ground(toy: Toy, form: str = "mask") -> tuple[Output, Output, dict[str, str]]:
    image, answer = asked(toy, "edit", TURN)["source"], dict(form=form, colour="pink")
    given = dict(clip=toy.flux["CLIP"], vae=toy.flux["VAE"], image=image, phrase=PHRASE)
    return image, picture(toy, toy.canvas.add("CoLoGenGround", **given, **answer)), answer


def forms(toy: Toy) -> None:
    for form in ("mask", "box"):
        image, drawn, _ = ground(toy, form)
        toy.preview(image, "given")
        toy.preview(drawn, f"form {form}")


def read(toy: Toy) -> None:
    image, drawn, answer = ground(toy)
    found = toy.canvas.add("CoLoGenReadGrounding", drawn=drawn, original=image, **answer)
    white = toy.canvas.add("MaskToImage", mask=found["mask"])
    for each, title in ((image, "original"), (drawn, "drawn"), (white[0], "mask"), (found["overlay"], "overlay")):
        toy.preview(each, title)


def strengths(toy: Toy) -> None:
    for strength in (0.0, 0.5, 1.0, 2.0):
        options = toy.canvas.add("CoLoGenSourceOptions", strength=strength)
        toy.preview(picture(toy, told(toy, "CoLoGenEdit", TURN, options=options[0])[1]), f"strength {strength:g}")


def leans(toy: Toy) -> None:
    for lean in (-1.0, 0.0, 1.0):
        options = toy.canvas.add("CoLoGenRouting", lean=lean)
        toy.preview(picture(toy, told(toy, "CoLoGenEdit", TURN, options=options[0])[1]), f"lean {lean:g}")


def windows(toy: Toy) -> None:
    question, prompts = told(toy, "CoLoGenEdit", TURN)
    toy.preview(question["source"], "given")
    for span in ("0 to 1", "0 to 0.3", "0.3 to 1"):
        positive, negative = (
            toy.canvas.add("CoLoGenExpertSchedule", conditioning=prompts[name], windows=span)[0]
            for name in ("positive", "negative")
        )
        sampled = dict(positive=positive, negative=negative)
        toy.preview(toy.sample(sampled, latent=prompts["latent"])[0], span)


def with_and_without(toy: Toy) -> None:
    question = asked(toy, "edit", 12)
    words = toy.words(question["prompt"])[0]
    source = dict(vae=toy.flux["VAE"], image=question["source"], task="edit")
    positive, negative = (
        toy.canvas.add("CoLoGenSource", conditioning=prompt, **source)[0] for prompt in (words, toy.empty)
    )
    toy.preview(question["source"], "image")
    for title, pair in (("without", (words, toy.empty)), ("with the source", (positive, negative))):
        sampled = dict(zip(("positive", "negative"), pair))
        toy.preview(toy.sample(sampled, latent=empty(toy))[0], title)


def route_map(toy: Toy) -> None:
    _, prompts = told(toy, "CoLoGenEdit", 3)
    given = dict(conditioning=prompts["positive"], latent=prompts["latent"])
    toy.preview(toy.canvas.add("CoLoGenRouteMap", model=toy.model[0], **given)[0], "")


def attention_map(toy: Toy) -> None:
    question = asked(toy, "inpaint", 12)
    words = toy.words(question["prompt"])[0]
    prompts = toy.task("CoLoGenInpaint", words, image=question["source"], mask=question["mask"], grow=0)
    image = toy.sample(prompts)
    given = dict(conditioning=prompts["positive"], latent=image.values["samples"], image=image[0])
    seen = toy.canvas.add("CoLoGenAttentionMap", model=toy.model[0], **given)
    for each, title in ((question["source"], "source"), (image[0], "drawn"), (seen["heat"], "who read it")):
        toy.preview(each, title)


def questions(toy: Toy) -> None:
    scenes = {"inpaint": 4, "ground": 6, "control": 3, "subject": 4, "edit": 4}
    for task, seed in scenes.items():
        question = asked(toy, task, seed)
        toy.preview(question["source"], f"{task}: source")
        toy.preview(question["answer"], "answer")


def places(toy: Toy) -> None:
    """From the same lines, without a word."""
    image = asked(toy, "control", 6)["answer"]
    lines = toy.canvas.add("CoLoGenControlMap", image=image, kind="canny", model="auto")
    prompts = toy.task("CoLoGenControl", toy.empty, map=lines[0], kind="canny")
    many = toy.canvas.add("EmptySD3LatentImage", width=64, height=64, batch_size=5)
    drawn = toy.sample(prompts, latent=many[0])
    ranked = toy.canvas.add("CoLoGenBestOf", images=drawn[0], keep=5, by="colour", reference=image)
    toy.preview(image, "reference")
    for place in range(5):
        one = toy.canvas.add("ImageFromBatch", image=ranked["best"], batch_index=place, length=1)
        toy.preview(one[0], f"place {place + 1}")


def lessons(toy: Toy, *tasks: str) -> Output:
    data = {}
    for task in tasks:
        coders = dict(vae=toy.flux["VAE"], clip=toy.flux["CLIP"])
        node = toy.canvas.add("CoLoGenTrainingData", source="built-in world", task=task, count=512, **coders, **data)
        data = dict(data=node["data"])
    return data["data"]


def samples(toy: Toy, grid: Output, places: list[tuple[int, int]]) -> None:
    """Some trios of a run's sheet, whose rows are tasks."""
    for trio, row in places:
        for i, title in enumerate(("source", "drawn", "target")):
            cut = dict(width=64, height=64, x=64 * (3 * trio + i), y=64 * row)
            toy.preview(toy.canvas.add("ImageCrop", image=grid, **cut)[0], title)


def stage(toy: Toy) -> None:
    given = dict(model=toy.flux["MODEL"], data=lessons(toy, "inpaint"), task="inpaint", run="picture_stage")
    knobs = dict(iterations=120, batch=16, rate=2e-3, time_shift=4.0, rho=1.0, veteran=0.0)
    samples(toy, toy.canvas.add("CoLoGenTrainStage", **given, **knobs, **RUN)["samples"], [(0, 0), (1, 0), (2, 0)])


def curriculum(toy: Toy) -> Node:
    given = dict(model=toy.flux["MODEL"], data=lessons(toy, "inpaint", "edit"), run="picture_curriculum")
    return toy.canvas.add("CoLoGenTrainCurriculum", recipe=RECIPE, budget="full", **given, **RUN)


def curriculum_samples(toy: Toy) -> None:
    last = toy.canvas.add("ImageFromBatch", image=curriculum(toy)["samples"], batch_index=1, length=1)
    samples(toy, last[0], [(0, 0), (1, 0), (0, 1), (1, 1)])


def usage(toy: Toy) -> None:
    toy.preview(toy.canvas.add("CoLoGenUsagePlot", loss=curriculum(toy)["loss"])[0], "")


def maps(toy: Toy) -> None:
    image = asked(toy, "control", 3)["answer"]
    toy.preview(image, "image")
    for kind in ("canny", "lineart", "hed"):
        toy.preview(toy.canvas.add("CoLoGenControlMap", image=image, kind=kind, model="auto")[0], kind)


def both_branches(toy: Toy) -> None:
    question = asked(toy, "subject", 3)
    prompts = subject(toy, question)
    toy.preview(question["source"], "given")
    toy.preview(picture(toy, prompts), "alone")
    branched(toy)
    toy.preview(picture(toy, prompts), "with a branch")


def branches(toy: Toy) -> None:
    prompts = subject(toy, asked(toy, "subject", 3))
    branched(toy)
    toy.preview(branch_map(toy, toy.sample(prompts, latent=empty(toy)))[0], "")


def ways(toy: Toy) -> None:
    question = asked(toy, "subject", 3)
    prompts, other = subject(toy, question), marked(toy, PLAIN, "")
    toy.preview(question["source"], "given")
    for title, way in SHOWN_WAYS.items():
        knobs = dict(superclass=other, negative=prompts["negative"], cfg=CFG, **asdict(way))
        toy.preview(guided(toy, prompts, empty(toy), **knobs)[0], title)


def own_subject(toy: Toy) -> None:
    mine = trained(toy.canvas, toy.flux, "picture_subject")
    for i in range(len(SCENES)):
        one = toy.canvas.add("ImageFromBatch", image=mine.values["photos"], batch_index=i, length=1)
        toy.preview(one[0], "photo")
    for text in SCENES:
        toy.preview(own(toy.canvas, toy.flux, mine["concept"], text=text)[0], "drawn")


def own_strengths(toy: Toy) -> None:
    mine = trained(toy.canvas, toy.flux, "picture_subject")
    for strength in (0.0, 0.5, 1.0):
        drawn = own(toy.canvas, toy.flux, mine["concept"], strength=strength)
        toy.preview(drawn[0], f"strength {strength:g}")


PICTURES: dict[str, Callable[[Toy], None]] = {
    "CoLoGenInpaint": answers("CoLoGenInpaint", 4, 12),
    "CoLoGenPasteBack": paste_back,
    "CoLoGenCropForInpaint": crop_and_stitch,
    "CoLoGenGround": forms,
    "CoLoGenReadGrounding": read,
    "CoLoGenControl": answers("CoLoGenControl", 3, 8),
    "CoLoGenControlMap": maps,
    "CoLoGenSubject": answers("CoLoGenSubject", 3, 4),
    "CoLoGenEdit": answers("CoLoGenEdit", 12, 7),
    "CoLoGenSource": with_and_without,
    "CoLoGenSourceOptions": strengths,
    "CoLoGenRouting": leans,
    "CoLoGenExpertSchedule": windows,
    "CoLoGenRouteMap": route_map,
    "CoLoGenAttentionMap": attention_map,
    "CoLoGenDualBranch": both_branches,
    "CoLoGenBranchMap": branches,
    "CoLoGenPersonalGuider": ways,
    "CoLoGenBestOf": places,
    "CoLoGenConceptTokens": own_strengths,
    "CoLoGenToyQuestion": questions,
    "CoLoGenTrainStage": stage,
    "CoLoGenTrainCurriculum": curriculum_samples,
    "CoLoGenTrainSubject": own_subject,
    "CoLoGenUsagePlot": usage,
}
