"""Which places of a drawn picture read each of its sources."""

import numpy as np
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..prw.comfyui.source_attention import KINDS, SourceAttention, measure_token, record_attention
from ..prw.fit_image import to_rgb
from ..training.monitor.heat_map import colour_heat, draw_heat_sheet, expand_tokens, lay_over
from .inputs.schema import CATEGORY, advanced, int_knob, make_schema

SCALES = ("each", "common", "share")


class CoLoGenAttentionMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenAttentionMap",
            display_name="CoLoGen Attention Map",
            category=CATEGORY,
            description="Shows where a drawn picture reads each of its sources: bright places took most from it. It looks at the "
            "finished picture a few times more; sampling itself stays as it is.",
            search_aliases=["heatmap", "heat map", "cross attention", "saliency", "explain", "which source"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The MODEL that drew the picture, after CoLoGen Experts or Apply."),
                io.Conditioning.Input("conditioning", tooltip="The positive prompt of the sampler, with its sources."),
                io.Latent.Input("latent", tooltip="What the sampler drew, before VAE Decode."),
                int_knob("source", 0, 0, 64, "Which source of the prompt, from 1. 0 shows all, one after the other."),
                int_knob(
                    "steps", 4, 1, 50,
                    "How often it looks, from much noise to little. Each takes as long as one sampling step at cfg 1.",
                ),
                io.Image.Input("image", optional=True, tooltip="From VAE Decode: the map lies over it. Open: on black."),
                io.Combo.Input(
                    "blocks",
                    options=list(KINDS),
                    optional=True,
                    tooltip="Of FLUX: double blocks, the first ones, lay things out; single ones finish surfaces.",
                    **advanced(),
                ),
                io.Combo.Input(
                    "scale",
                    options=list(SCALES),
                    optional=True,
                    tooltip="What is brightest. each: the highest place of each source. common: the highest of all, to compare "
                    "sources. share: all of a place's attention, so that most maps are dark.",
                    **advanced(),
                ),
            ],
            outputs=[
                io.Image.Output(display_name="heat", tooltip="In colours, over the picture; one a source and picture."),
                io.Image.Output(display_name="grey", tooltip="The same in grey: white took most from the source."),
                io.Mask.Output(display_name="mask", tooltip="The same as a mask, for a region or a blend."),
                io.String.Output(display_name="shares", tooltip="How much of its attention the picture gives to each."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model,
        conditioning,
        latent,
        source: int,
        steps: int,
        image: Tensor | None = None,
        blocks: str = "all",
        scale: str = "each",
    ) -> io.NodeOutput:
        found = choose_source(record_attention(model, conditioning, latent, steps, blocks), source)
        tops = find_tops(found, scale)
        latent_pixels, token_pixels = measure_token(model)
        height, width = (latent_pixels * side for side in latent["samples"].shape[-2:])
        resized = None if image is None else (image.shape[1], image.shape[2])
        scaled = [one.shares / max(top, 1e-12) for one, top in zip(found, tops)]
        mask = torch.cat([expand_tokens(shares, token_pixels, (height, width), resized) for shares in scaled]).clamp(
            0, 1
        )
        heat = colour_heat(mask)
        if image is not None:
            pictures = len(latent["samples"])
            heat = lay_over(heat, to_rgb(image)[[i % pictures % len(image) for i in range(len(heat))]])
        sheet = draw_heat_sheet(list(zip(map(describe_shares, found), heat.chunk(len(found)), tops)))
        preview = torch.from_numpy(np.asarray(sheet, dtype=np.float32) / 255)[None]
        words, grey = "\n".join(map(describe_shares, found)), mask[..., None].expand(-1, -1, -1, 3)
        return io.NodeOutput(heat, grey, mask, words, ui=ui.PreviewImage(preview, cls=cls))


def choose_source(found: list[SourceAttention], number: int) -> list[SourceAttention]:
    """Chooses the source of that number, or all of them for 0."""
    if number > len(found):
        raise ValueError(
            f"The source is {number}, expected 1 to {len(found)} as the prompt has: choose one of these, or 0 for all."
        )
    return found if number == 0 else [found[number - 1]]


def find_tops(found: list[SourceAttention], scale: str) -> list[float]:
    """Finds the share that is brightest in each map."""
    tops = [float(one.shares.max()) for one in found]
    return {"each": tops, "common": [max(tops)] * len(tops), "share": [1.0] * len(tops)}[scale]


def describe_shares(one: SourceAttention) -> str:
    """Describes how much of its attention a picture gives to a source, in words."""
    mean, highest = float(one.shares.mean()), float(one.shares.max())
    return f"{one.title}: {mean:.1%} of the attention, at most {highest:.1%}"
