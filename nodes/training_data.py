"""Training data: a folder of one's own or a built-in world, through the VAE and CLIP of the FLUX that is trained."""

from dataclasses import replace

import torch
from comfy_api.latest import io, ui

from ..prw.tasks import TASKS
from ..training.comfyui.example_sources import EXAMPLE_SOURCES, FOLDER_SOURCE
from ..training.comfyui.folders import data_folder
from ..training.comfyui.progress import open_progress_bar
from ..training.comfyui.training_data import TrainingData, encode_examples, open_encoders
from ..training.comfyui.training_maps import MAP_CHOICES, NONE, find_training_map
from .inputs.recipe import check_connected
from .inputs.schema import TRAINING, DataType, advanced, make_schema

SHOWN = 20
"""How many of the pictures that are left out the node names."""


class CoLoGenTrainingData(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenTrainingData",
            display_name="CoLoGen Training Data",
            category=TRAINING,
            description="Reads and encodes pictures for training one task. Chain several for several tasks.",
            search_aliases=["dataset", "load images", "make training dataset", "train lora"],
            inputs=[
                io.Vae.Input("vae", tooltip="The VAE of the FLUX that you will train."),
                io.Clip.Input(
                    "clip",
                    tooltip="Its text encoders (CLIP-L and T5-XXL for FLUX.1, Qwen3 for FLUX.2 klein): prompts are encoded once.",
                ),
                *example_knobs(),
                DataType.Input(
                    "data",
                    optional=True,
                    tooltip="Other training data, which these are added to: of other tasks, or more.",
                ),
                io.Combo.Input(
                    "drawn_map",
                    options=list(MAP_CHOICES),
                    optional=True,
                    tooltip="For control, where NAME.source.png is missing: this map is drawn of each picture. hed and lineart take "
                    "a network if its file is in models/detection, depth and seg need one, as CoLoGen Control Map does.",
                    **advanced(),
                ),
            ],
            outputs=[DataType.Output(display_name="data", tooltip="For the training nodes, or for more data.")],
        )

    @classmethod
    def fingerprint_inputs(cls, source: str = "", folder: str = "", drawn_map: str = NONE, **_):
        """Changes where pictures were added or changed, or another network draws their maps:
        then they are read again."""
        if source != FOLDER_SOURCE:
            return source
        try:
            files = sorted(data_folder(folder).iterdir())
            drawn = find_training_map(drawn_map)
            return (drawn.describe() if drawn else "") + str(
                [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
            )
        except (OSError, ValueError):
            return folder  # execute says what is wrong with it

    @classmethod
    def execute(
        cls, vae, clip, source, folder, task, size, count, cut_seed, data=None, drawn_map=NONE
    ) -> io.NodeOutput:
        check_connected(vae, clip)
        drawn = find_training_map(drawn_map) if (source, task) == (FOLDER_SOURCE, "control") else None
        examples = EXAMPLE_SOURCES[source](folder, task, size, count, cut_seed, None if drawn is None else drawn.open())
        with torch.inference_mode(False):  # training takes ordinary tensors
            encoders = open_encoders(vae, clip)
            dataset = encode_examples(encoders, task, examples.example, examples.count, open_progress_bar())
            data = replace(data, encoders=encoders) if data else TrainingData(encoders)
            data = data.add_dataset(dataset)
            data = data.note_maps(folder, drawn.describe()) if drawn else data
        lines = [drawn.describe()] if drawn else []
        lines += [f"{name} is left out: {why}" for name, why in examples.skipped.items()]
        return io.NodeOutput(data, ui=ui.PreviewText("\n".join([str(data), *lines[:SHOWN]])))


def example_knobs() -> list:
    """Lists knobs for which pictures, for which task, how many and how they are cut."""
    return [
        io.Combo.Input(
            "source",
            options=list(EXAMPLE_SOURCES),
            tooltip="folder: your own pictures. built-in world: small drawn shapes, to try training out. sticker world: things on scenes, for "
            "its own FLUX.",
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
            "takes four times the time and memory. Built-in worlds have sizes of their own.",
        ),
        io.Int.Input(
            "count",
            default=0,
            min=0,
            max=1_000_000,
            tooltip="How many examples: 0 takes each picture once, fewer leave some out, more take them again "
            "with other cuts and other holes. A tenth of the pictures, at most 64 examples of them, is kept out of "
            "training, for samples.",
        ),
        io.Int.Input(
            "cut_seed",
            default=0,
            min=0,
            max=2**32 - 1,
            tooltip="Another number cuts the pictures and draws the holes elsewhere.",
            **advanced(),
        ),
    ]
