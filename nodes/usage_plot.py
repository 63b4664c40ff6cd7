"""A run's curves: which experts it used, and how well it learned."""

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..training.monitor.history import History
from .inputs.schema import TRAINING, LossType, make_schema

SHOWN = ("usage", "loss", "validation")


class CoLoGenUsagePlot(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenUsagePlot",
            display_name="CoLoGen Usage Plot",
            category=TRAINING,
            description="Draws a training run: each expert's share of FLUX's blocks, and the loss, also on what was kept out.",
            search_aliases=["training chart", "plot usage", "router balance", "plot loss", "validation loss"],
            is_output_node=True,
            inputs=[LossType.Input("loss", tooltip="From CoLoGen Train Stage or CoLoGen Train Curriculum.")],
            outputs=[
                io.Image.Output(
                    tooltip="Three pictures: a curve an expert from 0 (no block takes it) to 1 (all do); the loss of "
                    "each stage; and of each task on pictures that were kept out: where it rises, it is forgotten."
                )
            ],
        )

    @classmethod
    def execute(cls, loss: dict) -> io.NodeOutput:
        if not loss.get("log"):
            raise ValueError(
                "This loss tells nothing of experts, expected that of a CoLoGen training node: connect one."
            )
        pictures = History.from_log(loss["log"]).draw_charts()
        image = torch.from_numpy(np.stack([np.asarray(pictures[name], dtype=np.float32) / 255 for name in SHOWN]))
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))
