"""Edit, control and subject: from what a person has to prompts that carry the source.

Each gives both prompts and, where the picture's size follows from what it was given, an empty latent. Sources add up:
the prompts of one node are the next one's. Inpainting and grounding have files of their own.
"""

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..prw.bank.bank import Bank
from ..prw.comfyui.make_source import SourceOptions, add_sources, add_task_source, make_source
from ..prw.comfyui.masks import find_subject, reshape_mask
from ..prw.fit_image import to_rgb
from .inputs.schema import make_schema
from .inputs.tasks import MAP_KINDS, TASK_NODES, latent_output, optional_inputs, prompt_inputs, prompt_outputs

KINDS = (*MAP_KINDS, "other")
"""Of control maps. Where a bank has imported experts, they are found by these names."""


MASKS = ("auto", "subject", "background")
"""What is white in a subject's mask."""


class CoLoGenEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenEdit",
            display_name="CoLoGen Edit",
            category=TASK_NODES,
            description="Changes a picture as the prompt says: make the car blue, remove the hat.",
            search_aliases=["kontext edit", "instruction", "instruct pix2pix", "omniedit", "image editing"],
            inputs=[*prompt_inputs(), io.Image.Input("image", tooltip="The picture to change."), *optional_inputs()],
            outputs=[*prompt_outputs(), latent_output()],
        )

    @classmethod
    def execute(
        cls,
        positive,
        vae,
        image: Tensor,
        negative=None,
        options: SourceOptions | None = None,
        experts: Bank | None = None,
    ):
        return io.NodeOutput(*add_task_source("edit", positive, negative, vae, image, options, experts))


class CoLoGenControl(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenControl",
            display_name="CoLoGen Control",
            category=TASK_NODES,
            description="Follows a map: edges, lines, depth or a segmentation. CoLoGen Control Map makes one from a picture.",
            search_aliases=["controlnet", "canny", "depth", "lineart", "hed", "segmentation", "pose", "easycontrol"],
            inputs=[
                *prompt_inputs(),
                io.Image.Input("map", tooltip="The map, as a picture."),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    tooltip="What the map shows. A bank with an imported expert of that name uses it; else it changes nothing.",
                ),
                *optional_inputs(),
            ],
            outputs=[*prompt_outputs(), latent_output()],
        )

    @classmethod
    def execute(
        cls,
        positive,
        vae,
        map: Tensor,
        kind: str,
        negative=None,
        options: SourceOptions | None = None,
        experts: Bank | None = None,
    ):
        return io.NodeOutput(*add_task_source("control", positive, negative, vae, map, options, experts, kind))


class CoLoGenSubject(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenSubject",
            display_name="CoLoGen Subject",
            category=TASK_NODES,
            description="Keeps someone or something from a picture in the new one. Chain it for several, each with its region.",
            search_aliases=["reference", "ip adapter", "face", "character", "redux", "subject200k", "uno"],
            inputs=[
                *prompt_inputs(),
                io.Image.Input("image", tooltip="The subject. A batch gives each picture of a latent batch its own."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White is the subject, unless mask_is says otherwise; all else becomes white paper.",
                ),
                *optional_inputs(),
                io.Combo.Input(
                    "mask_is",
                    options=list(MASKS),
                    optional=True,
                    tooltip="What is white in the mask. auto: the subject, but the background where most of the picture's border is "
                    "white, as in the mask that Load Image gives of a picture with transparency.",
                ),
            ],
            outputs=prompt_outputs(),
        )

    @classmethod
    def execute(
        cls,
        positive,
        vae,
        image: Tensor,
        mask: Tensor | None = None,
        negative=None,
        options: SourceOptions | None = None,
        experts: Bank | None = None,
        mask_is: str = "subject",  # as graphs without it had it
    ):
        image = to_rgb(image)
        if mask is not None:
            size = image.shape[1:3]
            image = paste_on_white(image, find_subject(reshape_mask(mask, len(image)), size, mask_is))
        source = make_source(vae, image, "subject", options or SourceOptions(), experts)
        shown = None if mask is None else ui.PreviewImage(image, cls=cls)
        return io.NodeOutput(*add_sources(positive, negative, source), ui=shown)


def paste_on_white(image: Tensor, subject: Tensor) -> Tensor:
    """Pastes the subject (batch or 1, height, width) on white (our choice)."""
    return torch.where(subject[..., None].to(image.device), image, 1.0)
