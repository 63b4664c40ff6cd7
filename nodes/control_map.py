"""Control maps from pictures, drawn as the training data has them."""

from functools import partial

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..prw.fit_image import to_bytes, to_rgb
from ..training.comfyui.map_models import AUTO, Draw, list_map_models, open_map_model, read_map_stamps
from ..training.data.tasks.canny import HIGH, LOW, THRESHOLDS, canny
from ..training.data.tasks.control import MAP_DRAWERS
from .inputs.preset import NUMBERS, preset_knob
from .inputs.schema import make_schema, slider
from .inputs.tasks import MAP_KINDS, TASK_NODES


class CoLoGenControlMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenControlMap",
            display_name="CoLoGen Control Map",
            category=TASK_NODES,
            description="Draws a map from a picture, for CoLoGen Control: edges, lines, soft edges, depth, a segmentation or a pose.",
            search_aliases=[
                "preprocessor",
                "annotator",
                "controlnet aux",
                "canny",
                "lineart",
                "hed",
                "softedge",
                "depth anything",
                "midas",
                "segmentation",
                "ade20k",
                "openpose",
                "skeleton",
            ],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="The picture, or a batch of them; a map has its size."),
                io.Combo.Input(
                    "kind",
                    options=list(MAP_KINDS),
                    tooltip="canny: white edges. lineart: dark lines on white. hed: soft white edges. depth: near is white. "
                    "seg: a colour for each class (ADE20K's, or COCO's). pose: coloured skeletons of people. Choose the same in CoLoGen Control.",
                ),
                io.Combo.Input(
                    "model",
                    options=[AUTO, *list_map_models()],
                    tooltip="What draws depth, seg and pose: a folder of transformers in models/geometry_estimation or "
                    "models/detection; auto takes the first that fits. For pose, a folder of RT-DETR or another detector there "
                    "finds the people; without one the whole picture is taken for one person. For hed auto needs no model; "
                    "ControlNetHED.safetensors in models/detection draws finer ones. canny and lineart never need one.",
                ),
                threshold_slider("low_threshold", LOW, "canny: an edge goes on while it is steeper than this."),
                threshold_slider(
                    "high_threshold", HIGH, "canny: an edge begins where it is steeper than this: less is more."
                ),
                preset_knob(
                    "preset",
                    THRESHOLDS,
                    "canny by name: its low and high threshold act in place of the two above. fine is what experts were trained on.",
                ),
            ],
            outputs=[io.Image.Output(display_name="map", tooltip="For CoLoGen Control, of the picture's size.")],
        )

    @classmethod
    def fingerprint_inputs(cls, kind: str, model: str, **rest):
        return read_map_stamps(kind, model) if needs_network(kind, model) else ""

    @classmethod
    def execute(
        cls,
        image: Tensor,
        kind: str,
        model: str,
        low_threshold: float,
        high_threshold: float,
        preset: str = NUMBERS,
    ) -> io.NodeOutput:
        low, high = THRESHOLDS.get(preset, (low_threshold, high_threshold))
        draw, maps = open_drawer(kind, model, low, high), []
        pictures = to_bytes(to_rgb(image))
        progress = comfy.utils.ProgressBar(len(pictures))
        for picture in pictures:
            comfy.model_management.throw_exception_if_processing_interrupted()
            maps.append(draw(picture))
            progress.update(1)
        batch = torch.from_numpy(np.stack(maps)) / 255
        batch = batch.to(comfy.model_management.intermediate_device())
        return io.NodeOutput(batch, ui=ui.PreviewImage(batch, cls=cls))


def threshold_slider(name: str, default: float, tooltip: str) -> io.Float.Input:
    """Makes a slider as the host's own Canny has it."""
    return slider(name, default, 0.01, 0.99, tooltip)


def needs_network(kind: str, model: str) -> bool:
    """Says whether a network draws this kind of map."""
    return MAP_DRAWERS.get(kind) is None or (kind == "hed" and model != AUTO)


def open_drawer(kind: str, model: str, low: float, high: float) -> Draw:
    """Opens the function or network that draws this kind of map."""
    draw = MAP_DRAWERS.get(kind)
    if draw is None or needs_network(kind, model):
        return open_map_model(kind, model)
    if kind != "canny":
        return draw
    if low > high:
        raise ValueError(f"low_threshold is {low:g}, expected at most high_threshold, {high:g}: lower it.")
    return partial(canny, low=low, high=high)
