"""A concept drawn with the help of a noun that FLUX knows well, and where each of the two was heard."""

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..prw.comfyui.dual_branch_sampling import DualBranch, find_dual_branch
from ..prw.personalization.dual_branch import BlendSettings
from .inputs.schema import SAMPLING, advanced, make_schema, slider

TILE, GAP, PAPER = 128, 4, 0.1
"""Pixels of a map's longer side and between maps, and the grey behind them."""


class CoLoGenDualBranch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenDualBranch",
            display_name="CoLoGen Dual Branch",
            category=SAMPLING,
            description="Lets a common noun lay out the scene for a subject that FLUX does not know: in the first steps a "
            "second picture of it is drawn beside, and lends its surroundings. For any sampler but those of the cfg_pp kind. "
            "On the toy world it gains a little, CoLoGen Personal Guider more.",
            search_aliases=["dci", "divide conquer integrate", "dbim", "personalization", "editability", "dreambooth"],
            inputs=[
                io.Model.Input("model", tooltip="FLUX.1 or FLUX.2, after CoLoGen Apply if the prompt has sources."),
                io.Conditioning.Input(
                    "auxiliary",
                    tooltip="The prompt with a common noun in place of the subject, from CoLoGen Marked Prompt: a [dog] "
                    "on the beach. It needs no source. The sampler's own prompt marks the subject.",
                ),
                io.Int.Input(
                    "auxiliary_seed",
                    default=1,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Noise of the second picture: another scene to borrow from. Not the sampler's own seed.",
                ),
                slider(
                    "strength",
                    0.0,
                    -100,
                    100,
                    "More takes more of the scene from the noun, less keeps more of the subject. 0 suits pictures of 1024 "
                    "pixels, 1 the smallest.",
                ),
                slider(
                    "end",
                    0.3,
                    0,
                    1,
                    "The part of the sampling with two pictures; it costs twice the time. 0 switches it off.",
                ),
                io.Int.Input(
                    "first_block", default=0, min=0, max=56, tooltip="First of FLUX's blocks that blends.", **advanced()
                ),
                io.Int.Input(
                    "last_block",
                    default=37,
                    min=0,
                    max=56,
                    tooltip="Last one: 0 to 18 are double blocks, which lay things out, 19 to 56 single ones.",
                    **advanced(),
                ),
                io.Boolean.Input(
                    "blend_sources",
                    default=False,
                    tooltip="Hold the sources back, too, where the subject is not.",
                    **advanced(),
                ),
            ],
            outputs=[io.Model.Output(tooltip="For the sampler or its guider.")],
        )

    @classmethod
    def execute(
        cls,
        model,
        auxiliary,
        auxiliary_seed: int,
        strength: float,
        end: float,
        first_block: int,
        last_block: int,
        blend_sources: bool,
    ) -> io.NodeOutput:
        blend = BlendSettings(strength, end, first_block, last_block, blend_sources)
        return io.NodeOutput(DualBranch(auxiliary, auxiliary_seed, blend).attach(model))


class CoLoGenBranchMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenBranchMap",
            display_name="CoLoGen Branch Map",
            category=SAMPLING,
            description="Draws where the subject was heard and where the common noun, in each step with two branches.",
            search_aliases=["attention map", "mask", "dci", "explain"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The MODEL after CoLoGen Dual Branch."),
                io.Latent.Input("latent", tooltip="What the sampler drew with it: the map is of its run."),
            ],
            outputs=[
                io.Image.Output(
                    tooltip="A row a picture, a map a step: white is the subject's, black the common noun's."
                )
            ],
        )

    @classmethod
    def execute(cls, model, latent) -> io.NodeOutput:
        branches = find_dual_branch(model)
        if branches is None or not branches.maps:
            raise ValueError(
                "There is no run with two branches to show, expected one: connect the MODEL of CoLoGen Dual Branch, "
                "and the latent that a sampler drew with it."
            )
        image = tile_maps(torch.stack(branches.maps))[None, ..., None].expand(-1, -1, -1, 3)
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


def tile_maps(maps: Tensor) -> Tensor:
    """Maps (steps, batch, rows, columns) as one grey picture (height, width)."""
    scale = max(1, TILE // max(maps.shape[-2:]))
    tiles = maps.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    tiles = torch.nn.functional.pad(tiles, (GAP, GAP, GAP, GAP), value=PAPER)
    return tiles.permute(1, 2, 0, 3).flatten(2).flatten(0, 1)
