"""Inpainting at full resolution: the hole's surroundings are cut out, drawn at the model's size, and put back."""

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..prw.comfyui.masks import feather_mask, grow_mask, list_masks, reshape_mask, resize_soft_mask
from ..prw.crop_hole import (
    FAINT,
    TOKEN_PIXELS,
    Stitch,
    cut_windows,
    draw_preview,
    plan_windows,
    stitch_windows,
)
from ..prw.fit_image import resize_bicubic, to_rgb
from .inputs.schema import StitchType, make_schema
from .inputs.tasks import TASK_NODES


class CoLoGenCropForInpaint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenCropForInpaint",
            display_name="CoLoGen Crop for Inpaint",
            category=TASK_NODES,
            description="Cuts a hole and what is round it out of a large picture, at the size that the model draws best. CoLoGen "
            "Stitch puts it back.",
            search_aliases=["crop and stitch", "inpaint crop", "only masked", "full resolution", "detailer", "zoom"],
            inputs=[
                io.Image.Input("image", tooltip="The whole picture, at its full size; or a batch of them."),
                io.Mask.Input(
                    "mask",
                    tooltip="White is to be new, grey changes as much as it is white. Several masks for one picture are several "
                    "crops.",
                ),
                io.Int.Input(
                    "grow",
                    default=6,
                    min=0,
                    max=512,
                    tooltip="Makes the hole larger by so many of the picture's pixels. The inpainting node then needs none: 0.",
                ),
                io.Int.Input(
                    "feather",
                    default=8,
                    min=0,
                    max=512,
                    tooltip="CoLoGen Stitch blends so many pixels inside the hole's edge; 0 cuts sharply.",
                ),
                io.Float.Input(
                    "context",
                    default=1.5,
                    min=1.0,
                    max=100.0,
                    step=0.01,
                    tooltip="How many times as wide and high as the hole the crop is. More shows the model more of the picture, "
                    "and leaves fewer pixels for the hole.",
                ),
                io.Int.Input(
                    "size",
                    default=1024,
                    min=TOKEN_PIXELS,
                    max=8192,
                    step=TOKEN_PIXELS,
                    tooltip="The crop's longest side when it is drawn. FLUX is at its best near 1024.",
                ),
            ],
            outputs=[
                StitchType.Output(display_name="stitch", tooltip="For CoLoGen Stitch: picture, hole and place."),
                io.Image.Output(display_name="image", tooltip="The crop, for any inpainting."),
                io.Mask.Output(display_name="mask", tooltip="The grown hole in the crop. It is as soft as yours."),
                io.Image.Output(display_name="preview", tooltip="The picture with hole and crop marked."),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, mask: Tensor, grow: int, feather: int, context: float, size: int) -> io.NodeOutput:
        rgb, masks = to_rgb(image), list_masks(mask)
        count = len(masks) if len(image) == 1 else len(image)
        hole = grow_mask(resize_soft_mask(reshape_mask(masks, count), image.shape[1:3]), grow)
        hole = torch.where(hole > FAINT, hole, 0.0).expand(count, -1, -1)
        rgb = rgb.expand(count, -1, -1, -1)
        windows, crop = plan_windows(hole, context, round(size / TOKEN_PIXELS) * TOKEN_PIXELS)
        original = image.float()[..., :4] if image.shape[-1] > 3 else rgb
        stitch = Stitch(original.expand(count, -1, -1, -1), hole, feather, windows, crop)
        part = resize_bicubic(cut_windows(rgb, windows), crop)
        preview = draw_preview(rgb, hole, windows)
        inside = resize_soft_mask(cut_windows(hole, windows), crop)
        return io.NodeOutput(stitch, part, inside, preview, ui=ui.PreviewImage(preview, cls=cls))


class CoLoGenStitch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenStitch",
            display_name="CoLoGen Stitch",
            category=TASK_NODES,
            description="Puts what was drawn of a crop back into the whole picture. Outside the hole every pixel stays exactly as "
            "it was.",
            search_aliases=["crop and stitch", "inpaint stitch", "uncrop", "paste back", "composite"],
            inputs=[
                StitchType.Input("stitch", tooltip="From CoLoGen Crop for Inpaint."),
                io.Image.Input("drawn", tooltip="The drawn crop, from VAE Decode; enlarged since, if you like."),
            ],
            outputs=[io.Image.Output(tooltip="The whole picture with its hole filled, at its full size.")],
        )

    @classmethod
    def execute(cls, stitch: Stitch, drawn: Tensor) -> io.NodeOutput:
        weight = torch.minimum(stitch.hole, feather_mask(stitch.hole > 0, stitch.feather))
        return io.NodeOutput(stitch_windows(stitch, drawn, weight))
