"""Inpainting: a hole as the experts know it, and every pixel outside it as it was."""

import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..prw.bank.bank import Bank
from ..prw.comfyui.make_source import SourceOptions, add_sources, make_empty_latent, make_source
from ..prw.comfyui.masks import feather_mask, grow_mask, reshape_mask, resize_mask, resize_soft_mask
from ..prw.fit_image import limit_size, resize_bicubic, to_rgb
from .inputs.schema import advanced, make_schema
from .inputs.tasks import TASK_NODES, latent_output, optional_inputs, prompt_inputs, prompt_outputs


class CoLoGenInpaint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenInpaint",
            display_name="CoLoGen Inpaint",
            category=TASK_NODES,
            description="Fills what is masked with what the prompt says. CoLoGen Paste Back then restores every other pixel.",
            search_aliases=["inpaint", "fill", "outpaint", "mask", "remove object", "generative fill"],
            inputs=[
                *prompt_inputs(),
                io.Image.Input("image", tooltip="The picture."),
                io.Mask.Input("mask", tooltip="White is to be new."),
                io.Int.Input(
                    "grow",
                    default=6,
                    min=0,
                    max=512,
                    tooltip="Makes the hole larger by so many pixels: hides old outlines.",
                ),
                io.Boolean.Input(
                    "keep_rest",
                    default=True,
                    tooltip="The sampler leaves everything outside the hole alone. Off: all of it is drawn anew.",
                ),
                *optional_inputs(),
                io.Boolean.Input(
                    "soft",
                    default=False,
                    optional=True,
                    tooltip="Half-transparent parts of the mask stay so in the latent, which the Differential Diffusion node "
                    "reads as how much may change. Off: they are cut at one half.",
                    **advanced(),
                ),
            ],
            outputs=[*prompt_outputs(), latent_output("The picture with its hole as noise mask, for the sampler.")],
        )

    @classmethod
    def execute(
        cls,
        positive,
        vae,
        image: Tensor,
        mask: Tensor,
        grow: int,
        keep_rest: bool,
        negative=None,
        options: SourceOptions | None = None,
        experts: Bank | None = None,
        soft: bool = False,
    ):
        options = options or SourceOptions()
        image = limit_size(to_rgb(image), options.size)
        mask = resize_soft_mask(reshape_mask(mask, len(image)), image.shape[1:3])
        hole = grow_mask(mask > 0.5, grow)
        if not hole.any():
            raise ValueError("The mask is empty, expected some white: paint what shall be new in the mask editor.")
        source = make_source(vae, image, "inpaint", options, experts, hole)
        prompts, size = add_sources(positive, negative, source), image.shape[1:3]
        picture = {"samples": vae.encode(image)} if keep_rest else make_empty_latent(source, len(image), *size)
        if keep_rest:
            picture["noise_mask"] = (grow_mask(mask, grow) if soft else hole.float())[:, None]
        return io.NodeOutput(*prompts, picture)


class CoLoGenPasteBack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenPasteBack",
            display_name="CoLoGen Paste Back",
            category=TASK_NODES,
            description="Puts what was drawn into the original picture, at its size. Unmasked pixels stay exactly as they were.",
            search_aliases=["composite", "stitch", "restore", "uncrop", "seamless"],
            inputs=[
                io.Image.Input("drawn", tooltip="From VAE Decode."),
                io.Image.Input("original", tooltip="The picture that was given to CoLoGen Inpaint."),
                io.Mask.Input("mask", tooltip="The same mask."),
                io.Int.Input("grow", default=6, min=0, max=512, tooltip="As in CoLoGen Inpaint."),
                io.Int.Input(
                    "feather",
                    default=8,
                    min=0,
                    max=512,
                    tooltip="Blends so many pixels inside the mask's edge; 0 cuts sharply.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The original with its hole filled.")],
        )

    @classmethod
    def execute(cls, drawn: Tensor, original: Tensor, mask: Tensor, grow: int, feather: int) -> io.NodeOutput:
        original = to_rgb(original)
        size = original.shape[1:3]
        larger = max(1.0, size[0] / drawn.shape[1])  # than what CoLoGen Inpaint grew its hole in
        hole = grow_mask(resize_mask(reshape_mask(mask, len(original)), size), round(grow * larger))
        weight = feather_mask(hole, feather)[..., None].to(original.device)
        drawn = resize_bicubic(to_rgb(drawn), size)
        if len(drawn) % len(original):
            raise ValueError(
                f"There are {len(drawn)} drawn pictures for {len(original)} originals, expected a multiple: draw as many for each."
            )
        originals, weights = (comfy.utils.repeat_to_batch_size(part, len(drawn)) for part in (original, weight))
        return io.NodeOutput(torch.where(weights > 0, torch.lerp(originals, drawn, weights), originals))
