"""What the routers chose, as a picture."""

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..prw.comfyui.routes import compute_routes
from ..training.monitor.route_map import describe_changes, draw_routes
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
                io.Boolean.Input(
                    "ablate",
                    default=False,
                    optional=True,
                    tooltip="Also show what older experts change: two rows more, for their blocks given to the newest and to none.",
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="One row of tiles per source: experts down, blocks across, bright is strong."),
                io.String.Output(
                    display_name="older_experts",
                    tooltip="Which blocks take an older expert and, with ablate, how far keys and values move without it.",
                ),
            ],
        )

    @classmethod
    def execute(cls, model, conditioning, latent, ablate: bool = False) -> io.NodeOutput:
        maps = compute_routes(model, conditioning, latent["samples"], ablate)
        image = torch.from_numpy(np.asarray(draw_routes(maps), dtype=np.float32) / 255)[None]
        return io.NodeOutput(image, describe_changes(maps), ui=ui.PreviewImage(image, cls=cls))
