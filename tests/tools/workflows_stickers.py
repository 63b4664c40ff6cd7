"""Example workflows for the sticker world's set: what it has learned, on pictures that one can look at."""

from cologen.training.world.store import STICKER_NAME, STICKERS
from workflows_toy import Toy, list_tasks


class Stickers(Toy):
    prefix, world, side = "sticker", STICKER_NAME, 128
    scenes = {"inpaint": 3, "control": 24, "subject": 34, "edit": 15}
    enlarged, how = 4, "lanczos"
    guided = tuple(f"CoLoGen{task.capitalize()}" for task in STICKERS.guided_by_source)
    phrase, colour, instruction = "the animal", "magenta", "replace the fox with a cat"
    notes = {
        "inpaint": "## Inpaint, with stickers\n\nNothing to download: *Toy Question* draws a scene with a grey hole and says what belongs "
        "there. Change its number for another scene.",
        "ground": "## Ground: find a sticker\n\nType what to find, by name or by what it is: *the animal*, *the car*. FLUX draws the "
        "answer on the picture, *Read Grounding* reads it: as mask, as box, as text.",
        "control": "## Control, with stickers\n\n*Control Map* takes a picture's edges: they say where what is. The words say names, colours "
        "and the ground.\n\nThe negative prompt goes past the task's node and reads no map: so cfg draws towards "
        "the map, too, not towards the words alone.",
        "subject": "## Subject, with stickers\n\nOne of the things in the picture, drawn in another place, on another ground. FLUX has no name for it and "
        "has never seen it: what it looks like comes from the picture alone.\n\nThe negative prompt goes past the task's node "
        "and reads no picture: so cfg draws towards the picture, too, not towards the words alone.",
        "edit": "## Edit, with stickers\n\nThe instruction names a thing and not its place: the experts have to find it. Type another "
        "one, such as *make it night* or *remove the car*.",
    }


WORKFLOWS = list_tasks(Stickers)
