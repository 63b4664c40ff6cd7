"""Example workflows of nodes that the others do without: a schedule for sources, a whole curriculum, and a learned number."""

from canvas import Canvas
from cologen.training.toy.store import TOY_NAME
from layout import TRAINING
from workflows_flux import wants
from workflows_flux2 import SIDE
from workflows_templates import LICENCES, NEGATIVE, KleinBase
from workflows_toy import TOLD, Toy

BRIGHTNESS = "Template-KleinBase4B-Brightness.safetensors"
MIDDLE, DARK = 0.5, 0.2
"""Of Brightness: what its authors give to the negative prompt, and an evening's."""
RECIPE = """rank = 32
alpha = 64.0
rate = 2e-3
time_shift = 4.0
stages = [
  { name = "inpaint", iterations = 60, batch = 16, rho = 1.0, veteran = 0.0 },
  { name = "edit", iterations = 60, batch = 16, start = "inpaint" },
]"""


def schedule(canvas: Canvas) -> None:
    toy = Toy(canvas)
    lines, thing = toy.question("control", "A map", TOLD), toy.question("subject", "A thing", TOLD)
    words = toy.words("a circle at the bottom left and a yellow square at the top right")[0]
    for picture, task, title in ((lines, "control", "First this"), (thing, "subject", "Then that")):
        given = dict(vae=toy.flux["VAE"], image=picture["source"], task=task)
        words = canvas.add("CoLoGenSource", title, conditioning=words, **given)[0]
    words = canvas.add("CoLoGenExpertSchedule", conditioning=words, windows="0 to 0.6, 0.3 to 1")[0]
    latent = canvas.add("EmptySD3LatentImage", width=64, height=64)[0]
    toy.save_image(toy.sample(dict(positive=words, negative=toy.empty), latent)[0], "toy_schedule")
    toy.preview(lines["source"], "The map")
    toy.preview(thing["source"], "The thing")
    canvas.note(
        "## One source, then another\n\n*CoLoGen Source* is the node for any task. *Expert Schedule* says when each of a prompt's "
        "sources acts: the map lays things out in the first steps, the thing takes over later, and for some steps both are read."
    )


def train_curriculum(canvas: Canvas) -> None:
    flux = canvas.add("CoLoGenLoadFlux", unet_name=TOY_NAME, vae_name=TOY_NAME)
    given, data = dict(vae=flux["VAE"], clip=flux["CLIP"], source="built-in world", count=512), {}
    for task in ("inpaint", "edit"):
        data = dict(data=canvas.add("CoLoGenTrainingData", f"Lessons: {task}", task=task, **given, **data)["data"])
    knobs = dict(recipe=RECIPE, budget="full", run="toy_curriculum", micro=0, checkpointing=False, sample_every=30)
    trained = canvas.add("CoLoGenTrainCurriculum", box=(400, 0), model=flux["MODEL"], **data, **knobs)
    canvas.add("CoLoGenUsagePlot", section=TRAINING, loss=trained["loss"])
    toy = Toy(canvas, flux, trained)
    question = toy.question("edit")
    told = toy.task("CoLoGenEdit", toy.words(question["prompt"])[0], image=question["source"])
    drawn = toy.sample(told)[0]
    toy.save_image(drawn, "toy_curriculum")
    toy.preview(question["answer"], "The right answer")
    compared = dict(references=question["answer"], sources=question["source"])
    canvas.add("CoLoGenEvaluate", "How near it is", results=drawn, **compared)
    canvas.note(
        "## Train a curriculum\n\nThe recipe's stages are trained one after the other, an expert each; the second begins as a copy "
        "of the first. Sixty iterations a stage show how it goes, hundreds learn the tasks. Cancel keeps what was learned, queue "
        "again goes on.\n\n*Evaluate* measures the drawn picture against the right answer and against what was given."
    )


def brightness(canvas: Canvas) -> None:
    klein = KleinBase(canvas)
    sides = {}
    for side, text, value in (
        ("positive", "A quiet street by the sea, photograph", DARK),
        ("negative", NEGATIVE, MIDDLE),
    ):
        prompt = klein.encode_prompt(text, "Prompt" if side == "positive" else "Negative prompt: none")
        given = dict(models=wants(BRIGHTNESS), conditioning=prompt, file=BRIGHTNESS, value=value)
        sides[side] = canvas.add("CoLoGenLearnedKeys", f"How bright: {value:g}", section="Prompt and task", **given)[0]
    latent = canvas.add("EmptyFlux2LatentImage", width=SIDE, height=SIDE)[0]
    klein.save_image(klein.sample(sides, latent))
    canvas.note(
        "## How bright, as a number\n\n*Learned Keys* adds a number to a prompt, which FLUX.2 reads as it reads a picture: 0 is "
        "dark, 1 is bright. The negative prompt gets the middle, so that cfg pushes away from it.\n\nSave the template's "
        "`model.safetensors` in `models/cologen` under the name that *Learned Keys* shows. It has not been tried on the published "
        "file yet." + LICENCES
    )


WORKFLOWS = {"toy_schedule": schedule, "toy_train_curriculum": train_curriculum, "flux2_klein_brightness": brightness}
