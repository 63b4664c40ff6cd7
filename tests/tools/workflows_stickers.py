"""Example workflows for the sticker world's set: what it has learned, on pictures that one can look at."""

from canvas import Canvas
from cologen.training.world.store import STICKER_NAME
from workflows_toy import Toy, beside

PHRASE, COLOUR = "the animal", "magenta"
THING = "the panda"
INSTRUCTION = f"remove {THING}"
"""What the question of the edit's workflow asks."""


class Stickers(Toy):
    world, side = STICKER_NAME, 128
    scenes = {"inpaint": 3, "control": 9, "edit": 10}
    enlarged, how = 4, "lanczos"


def inpaint(canvas: Canvas) -> None:
    toy = Stickers(canvas)
    question = toy.question("inpaint")
    hole = dict(mask=question["mask"], grow=0)
    told = toy.task("CoLoGenInpaint", toy.words(question["prompt"])[0], image=question["source"], **hole)
    whole = canvas.add(
        "CoLoGenPasteBack", drawn=toy.sample(told)[0], original=question["source"], feather=0, **hole
    )  # fmt: skip
    toy.save_image(whole[0], "sticker_inpaint")
    canvas.compare(question["source"], whole[0])
    beside(toy, question)
    canvas.note(
        "## Inpaint, with stickers\n\nNothing to download: *Toy Question* draws a scene with a grey hole and says what belongs "
        "there. Change its number for another scene.",
    )


def ground(canvas: Canvas) -> None:
    toy = Stickers(canvas, empty=False)
    question = toy.question("edit", "A picture")
    answer = dict(form="mask", colour=COLOUR)
    coders = dict(clip=toy.flux["CLIP"], vae=toy.flux["VAE"])
    told = canvas.add("CoLoGenGround", image=question["source"], phrase=PHRASE, **coders, **answer)
    image = toy.sample(told)
    found = canvas.add("CoLoGenReadGrounding", drawn=image[0], original=question["source"], **answer)
    toy.save_image(found["overlay"], "sticker_ground", "Found")
    toy.preview(image[0], "Drawn")
    canvas.add("PreviewAny", "Where", source=found["text"])
    canvas.note(
        "## Ground: find a sticker\n\nType what to find, by name or by what it is: *the animal*, *the car*, *the gift*. FLUX draws the "
        "answer on the picture, *Read Grounding* reads it: as mask, as box, as text.",
    )


def control(canvas: Canvas) -> None:
    toy = Stickers(canvas)
    question = toy.question("control")
    edges = canvas.add("CoLoGenControlMap", image=question["answer"], kind="canny")
    told = toy.task("CoLoGenControl", toy.words(question["prompt"])[0], map=edges[0], kind="canny")
    toy.save_image(toy.sample(told)[0], "sticker_control")
    toy.preview(edges[0], "The map")
    toy.preview(question["answer"], "Where it comes from")
    canvas.note(
        "## Control, with stickers\n\n*Control Map* takes a picture's edges: they say where what is. The words say names, colours "
        "and the ground.",
    )


def edit(canvas: Canvas) -> None:
    toy = Stickers(canvas)
    question = toy.question("edit")
    told = toy.task("CoLoGenEdit", toy.words(INSTRUCTION, "Prompt: type here")[0], image=question["source"])
    image = toy.sample(told)[0]
    toy.save_image(image, "sticker_edit")
    canvas.compare(question["source"], image)
    toy.preview(question["source"], "Given")
    canvas.add("CoLoGenRouteMap", model=toy.model[0], conditioning=told["positive"], latent=told["latent"])
    canvas.note(
        "## Edit, with stickers\n\nThe instruction names a thing and not its place: the experts have to find it. Type another "
        "one, such as *make it night* or *remove the gift*.",
    )


BY_TASK = {"inpaint": inpaint, "ground": ground, "control": control, "edit": edit}
WORKFLOWS = {f"sticker_{task}": build for task, build in BY_TASK.items()}
