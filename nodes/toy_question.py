"""Something to ask a built-in world: a picture, what is wanted of it, and the answer."""

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..training.comfyui.built_in import BUILT_IN
from ..training.from_scratch.evaluate import HELD_OUT_SEED
from ..training.toy.store import TOY, TOY_NAME
from .inputs.schema import CATEGORY, make_schema


class CoLoGenToyQuestion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenToyQuestion",
            display_name="Toy Question (CoLoGen)",
            category=CATEGORY,
            description="Draws a question of a built-in world: what to give it, what to ask, and the right answer.",
            search_aliases=["example", "demo", "test picture", "toy world", "stickers"],
            inputs=[
                io.Combo.Input("task", options=list(TOY.tasks), tooltip="What shall be asked for."),
                io.Int.Input(
                    "question_seed",
                    default=0,
                    min=0,
                    max=999_999,
                    control_after_generate=True,
                    tooltip="Another number is another scene; none of them was in the training.",
                ),
                io.Combo.Input(
                    "world",
                    options=list(BUILT_IN),
                    default=TOY_NAME,
                    optional=True,
                    tooltip="toy world: shapes on 64 x 64 pixels. sticker world: things on scenes, 128 x 128. Take the FLUX of the same world.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="source", tooltip="For the task's node."),
                io.String.Output(display_name="prompt", tooltip="For the text encode node."),
                io.Image.Output(display_name="answer", tooltip="What a perfect answer looks like, to compare."),
                io.Mask.Output(display_name="mask", tooltip="What is to change: the hole of an inpainting question."),
            ],
        )

    @classmethod
    def execute(cls, task: str, question_seed: int, world: str = TOY_NAME) -> io.NodeOutput:
        (question,) = BUILT_IN[world].ask_held_out(task, 1, HELD_OUT_SEED + question_seed)
        example = question.example
        change = torch.from_numpy((example.source != example.target).any(-1).astype(np.float32))[None]
        return io.NodeOutput(_image(example.source), example.prompt, _image(example.target), change)


def _image(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float32) / 255)[None]
