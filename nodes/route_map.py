"""What the routers chose, as a picture."""

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..prw.comfyui.patch import compute_routes
from ..training.monitor.route_map import draw_routes
from .inputs.schema import CATEGORY, make_schema


class CoLoGenRouteMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenRouteMap",
            display_name="CoLoGen Route Map",
            category=CATEGORY,
            description="Draws which expert each block of FLUX takes for the sources of a prompt, and how strongly.",
            search_aliases=["router", "experts", "usage", "explain"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The MODEL after CoLoGen Apply."),
                io.Conditioning.Input("conditioning", tooltip="The prompt with its sources."),
                io.Latent.Input("latent", tooltip="The latent you sample: only its size is used."),
            ],
            outputs=[
                io.Image.Output(tooltip="One row of tiles per source: experts down, blocks across, bright is strong.")
            ],
        )

    @classmethod
    def execute(cls, model, conditioning, latent) -> io.NodeOutput:
        picture = draw_routes(compute_routes(model, conditioning, latent["samples"]))
        image = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))
