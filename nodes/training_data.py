"""Training data: a folder of one's own or the built-in world, through the VAE and CLIP of the FLUX that is trained."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import io, ui

from ..prw.tasks import TASKS
from ..training.comfyui.folders import data_folder
from ..training.comfyui.training_data import HostEncoders, TrainingData, encode_examples
from ..training.data.sample import Example
from ..training.data.tasks.folder import FolderExamples
from .inputs.schema import TRAINING, DataType, advanced, schema

Examples = tuple[Callable[[int], Example], int, Mapping[str, str]]
"""The example at a place, how many there are, and which are left out, why: more are found while they are read."""
TOY_COUNT = 1000
SHOWN = 20
"""Of those left out."""


class CoLoGenTrainingData(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CoLoGenTrainingData",
            display_name="CoLoGen Training Data",
            category=TRAINING,
            description="Reads and encodes pictures for training one task. Chain several for several tasks.",
            search_aliases=["dataset", "load images", "make training dataset", "train lora"],
            inputs=[
                io.Vae.Input("vae", tooltip="FLUX's VAE."),
                io.Clip.Input("clip", tooltip="FLUX's text encoders, CLIP-L and T5-XXL: prompts are encoded once."),
                io.Combo.Input(
                    "source",
                    options=list(SOURCES),
                    tooltip="folder: your own pictures. built-in world: small drawn scenes, to try training out.",
                ),
                io.String.Input(
                    "folder",
                    default="my_pictures",
                    tooltip="Within input/cologen: NAME.png (what to draw), NAME.txt (its prompt) and NAME.source.png "
                    "(what the model is given); for inpaint NAME.mask.png instead, or nothing for random holes.",
                ),
                io.Combo.Input("task", options=list(TASKS), tooltip="What these pictures teach."),
                io.Int.Input(
                    "size",
                    default=512,
                    min=64,
                    max=2048,
                    step=16,
                    tooltip="Pictures are cut to squares of this side. Larger learns finer detail; twice the size "
                    "takes four times the time and memory. The built-in world has a size of its own.",
                ),
                io.Int.Input(
                    "count",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="How many examples: 0 takes each picture once, fewer leave some out, more take them again "
                    "with other cuts and other holes. A tenth of the pictures, or as many as make 64, is kept out of training, "
                    "for samples.",
                ),
                io.Int.Input(
                    "cut_seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    tooltip="Another number cuts the pictures and draws the holes elsewhere.",
                    **advanced(),
                ),
                DataType.Input(
                    "data",
                    optional=True,
                    tooltip="Other training data, which these are added to: of other tasks, or more.",
                ),
            ],
            outputs=[DataType.Output(display_name="data", tooltip="For the training nodes, or for more data.")],
        )

    @classmethod
    def fingerprint_inputs(cls, source: str = "", folder: str = "", **_):
        """Pictures that were added or changed are read again."""
        if source != OWN:
            return source
        try:
            files = sorted(data_folder(folder).iterdir())
            return str([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
        except (OSError, ValueError):
            return folder  # execute says what is wrong with it

    @classmethod
    def execute(cls, vae, clip, source, folder, task, size, count, cut_seed, data=None) -> io.NodeOutput:
        encoders = make_host_encoders(vae, clip)
        example, count, left_out = SOURCES[source](folder, task, size, count, cut_seed)
        with torch.inference_mode(False):  # training takes ordinary tensors
            dataset = encode_examples(encoders, task, example, count, progress())
            encoders = replace(encoders, empty=encoders.encode_prompts([""]))
            data = TrainingData(encoders, data.datasets if data else {}).add_dataset(dataset)
        lines = [f"{name} is left out: {why}" for name, why in left_out.items()]
        return io.NodeOutput(data, ui=ui.PreviewText("\n".join([str(data), *lines[:SHOWN]])))


def make_host_encoders(vae, clip) -> HostEncoders:
    if vae is None or clip is None:
        raise ValueError(
            "There is no VAE or no CLIP, expected FLUX.1's: connect those of the stock loaders or Load FLUX."
        )
    return HostEncoders(vae, clip)


def folder_examples(folder: str, task: str, size: int, count: int, seed: int) -> Examples:
    found = FolderExamples(data_folder(folder), task, size)
    count = max(2, count or len(found))

    def example(i: int) -> Example:
        return found.example(i * len(found) // count, np.random.default_rng((seed, i)))

    return example, count, found.skipped


def toy_examples(folder: str, task: str, size: int, count: int, seed: int) -> Examples:
    from ..training.toy.make import make_toy_examples as draw

    drawn = draw(task, max(2, count or TOY_COUNT), seed)
    return drawn.__getitem__, len(drawn), {}


OWN = "folder"
SOURCES = {OWN: folder_examples, "built-in world": toy_examples}


def progress() -> Callable[[int, int], None]:
    bar = comfy.utils.ProgressBar(1)

    def tell(done: int, total: int) -> None:
        bar.update_absolute(done, total)
        comfy.model_management.throw_exception_if_processing_interrupted()

    return tell
