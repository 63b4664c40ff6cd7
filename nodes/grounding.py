"""Grounding: a phrase in, a picture with the answer drawn on it out; and that answer as mask, box and text."""

from collections.abc import Sequence

import numpy as np
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..prw.bank.bank import Bank
from ..prw.boxes import Rectangle
from ..prw.comfyui.boxes import read_boxes
from ..prw.comfyui.make_source import SourceOptions, add_task_source, check_clip
from ..prw.fit_image import TOKEN_PIXELS, resize_bicubic, to_bytes, to_rgb
from ..training.data.tasks.ground import COLOURS, FORMS, read_colour
from ..training.data.tasks.read_grounding import Answer, draw_answer, read_answer
from ..training.toy.scene import MARKERS
from .inputs.schema import BoxType, OptionsType, box_input, make_schema
from .inputs.tasks import TASK_NODES, experts_input, latent_output, prompt_outputs

NAMED = {**COLOURS, **MARKERS}
"""The toy world answers in colours of its own."""


class CoLoGenGround(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenGround",
            display_name="CoLoGen Ground",
            category=TASK_NODES,
            description="Finds what a phrase names and draws a box round it, or paints it. CoLoGen Read Grounding reads that.",
            search_aliases=[
                "grounding",
                "detect",
                "find",
                "segment",
                "bounding box",
                "refcoco",
                "grounding dino",
                "sam",
            ],
            inputs=[
                io.Clip.Input("clip", tooltip="FLUX's text encoders: the phrase becomes an instruction."),
                io.Vae.Input("vae", tooltip="FLUX's VAE."),
                io.Image.Input("image", tooltip="The picture in which something is to be found."),
                io.String.Input("phrase", default="the person on the left", tooltip="What to find."),
                io.Combo.Input(
                    "form",
                    options=list(FORMS),
                    tooltip="box: round it. mask: painted over. instance: a box round one of a kind. detect: boxes round all of "
                    "a kind, if the experts learned it.",
                ),
                io.Combo.Input(
                    "colour",
                    options=list(NAMED),
                    tooltip="Of the answer: choose one that the thing does not have. The toy set knows lime and pink, the "
                    "sticker set red, green, blue, yellow, magenta and cyan.",
                ),
                OptionsType.Input("options", optional=True, tooltip="From CoLoGen Source Options."),
                experts_input(),
                box_input(
                    "boxes",
                    "Where to look: only the rectangle round these boxes is shown to FLUX, and the answer drawn on it. Give the same "
                    "to CoLoGen Read Grounding.",
                ),
            ],
            outputs=[*prompt_outputs(), latent_output()],
        )

    @classmethod
    def execute(
        cls,
        clip,
        vae,
        image: Tensor,
        phrase: str,
        form: str,
        colour: str,
        options: SourceOptions | None = None,
        experts: Bank | None = None,
        boxes=None,
    ):
        check_clip(clip)
        image = to_rgb(image)
        if not phrase.strip():
            raise ValueError("The phrase is empty, expected what to find: type it, such as the red car.")
        prompt = FORMS[form].templates[0].format(thing=phrase.strip(), kind=phrase.strip(), colour=colour)
        positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (prompt, ""))
        shown = image[(slice(None), *find_place(image, boxes))]
        return io.NodeOutput(*add_task_source("ground", positive, negative, vae, shown, options, experts))


class CoLoGenReadGrounding(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenReadGrounding",
            display_name="CoLoGen Read Grounding",
            category=TASK_NODES,
            description="Reads the answer of CoLoGen Ground off the drawn picture: a mask, a box, a clean picture of both.",
            search_aliases=["mask from box", "bounding box", "segmentation mask", "detections"],
            is_output_node=True,
            inputs=[
                io.Image.Input("drawn", tooltip="From VAE Decode."),
                io.Image.Input("original", tooltip="The picture that was asked about: what changed is the answer."),
                io.Combo.Input("form", options=list(FORMS), tooltip="As in CoLoGen Ground."),
                io.Combo.Input(
                    "colour", options=list(NAMED), tooltip="As in CoLoGen Ground. A drift of it is allowed for."
                ),
                box_input("boxes", "As in CoLoGen Ground: where in the original it looked."),
            ],
            outputs=[
                io.Mask.Output(
                    display_name="mask", tooltip="White where it is; a box's whole inside. Black: nothing found."
                ),
                BoxType.Output(display_name="box", tooltip="Round the largest answer, in pixels of the original."),
                io.Image.Output(display_name="overlay", tooltip="The original with the answer drawn cleanly."),
                io.String.Output(display_name="text", tooltip="How many were found, and where."),
                BoxType.Output(
                    display_name="boxes", tooltip="Round every answer, the largest first, in pixels of the original."
                ),
            ],
        )

    @classmethod
    def execute(cls, drawn: Tensor, original: Tensor, form: str, colour: str, boxes=None) -> io.NodeOutput:
        place = find_place(original, boxes)
        wholes = _to_pixels(original)
        pictures = _to_pixels(drawn, wholes[0][place].shape[:2])
        pairs = [(picture, wholes[i % len(wholes)][place]) for i, picture in enumerate(pictures)]
        colours = COLOURS if colour in COLOURS else MARKERS
        seen = [read_answer(picture, source, form, colour, colours) for picture, source in pairs]
        answers = [answer.embed(place, wholes[0].shape[:2]) for answer in seen]
        masks = torch.from_numpy(np.stack([answer.mask for answer in answers]).astype(np.float32))
        clean = np.stack(
            [draw_answer(wholes[i % len(wholes)], answer, form, NAMED[colour]) for i, answer in enumerate(answers)]
        )
        others = [None if answer.boxes else find_other_colour(*pair, form) for answer, pair in zip(answers, pairs)]
        text = "\n".join(map(describe_answer, answers, others))
        if not masks.any() and not has_shape(drawn, wholes[0][place].shape[:2]):
            text += "\nThe drawn picture has another shape: connect the boxes that CoLoGen Ground has, and the picture that it has."
        box = _name_sides(answers[0].largest)
        found = [[_name_sides(box.corner_and_size) for box in answer.boxes] for answer in answers]
        image = torch.from_numpy(clean) / 255
        return io.NodeOutput(masks, box, image, text, found, ui=ui.PreviewImage(image, cls=cls))


def find_place(image: Tensor, boxes) -> tuple[slice, slice]:
    """Finds rows and columns of an IMAGE that the smallest rectangle round all boxes covers; without boxes,
    all of them."""
    height, width = image.shape[1:3]
    if boxes is None:
        return slice(0, height), slice(0, width)
    parts = [box.clip(height, width) for box in read_boxes(boxes)]
    rows, columns = zip(*parts)
    return _join(rows), _join(columns)


def has_shape(image: Tensor, size: Sequence[int]) -> bool:
    """Says whether an IMAGE is a picture of that height and width in another size,
    sides rounded as those of latents are."""
    (height, width), (rows, columns) = image.shape[1:3], size
    return abs(height * columns - width * rows) <= TOKEN_PIXELS * max(rows, columns)


def _name_sides(box: tuple[int, int, int, int]) -> dict[str, int]:
    return dict(zip(Rectangle._fields, box))


def _join(parts: Sequence[slice]) -> slice:
    return slice(min(part.start for part in parts), max(part.stop for part in parts))


def _to_pixels(image: Tensor, size=None) -> np.ndarray:
    """Turns an IMAGE into bytes (batch, height, width, 3), perhaps resized."""
    image = to_rgb(image)
    return to_bytes(image if size is None else resize_bicubic(image, size))


def find_other_colour(picture: np.ndarray, source: np.ndarray, form: str) -> str | None:
    """Finds the colour of an answer that another colour did not find; None if there is no answer in any."""
    for colours in (COLOURS, MARKERS):
        colour = read_colour(picture, source, colours=colours)
        if colour is not None and read_answer(picture, source, form, colour, colours).boxes:
            return colour
    return None


def describe_answer(answer: Answer, other: str | None = None) -> str:
    """Describes what was found, in words."""
    if other is not None:
        return f"Nothing was found in this colour, but an answer in {other}: choose the colour that CoLoGen Ground asked for."
    if not answer.boxes:
        return "Nothing was found: try another colour, a shorter phrase, or another form."
    places = "; ".join(f"x {box.x0} to {box.x1}, y {box.y0} to {box.y1}" for box in answer.boxes)
    return f"{len(answer.boxes)} found: {places}"
