"""Knobs of a source, for the node that adds one and for the options of task nodes."""

from typing import Any

from comfy_api.latest import io

from ...prw.comfyui.boxes import ALL
from ...prw.comfyui.patch import require_attachment
from ...prw.find_experts import match_names
from ...prw.fit_image import TOKEN_PIXELS
from ...prw.source import PLACEMENTS, POSITIONS
from .schema import advanced, box_input, int_knob, slider


def strength_knobs() -> list:
    """Lists knobs for how strongly, when, how large and where a source acts."""
    return [
        slider("strength", 1.0, 0, 4, "How strongly the picture reads the source. 0 switches it off; 1 is free."),
        slider("expert_strength", 1.0, -2, 4, "How far the experts bend the source. 0: FLUX's own reading of it."),
        slider("start", 0.0, 0, 1, "From this part of the sampling on the source is read (0 is the first step)."),
        slider("end", 1.0, 0, 1, "From here on the source is left out: lower gives the prompt the last word."),
        io.Int.Input(
            "size",
            default=1024,
            min=0,
            max=4096,
            step=TOKEN_PIXELS,
            tooltip="Shrinks the source to this longest side in pixels; 0 never. 512 costs a quarter of 1024.",
        ),
        io.Mask.Input("region", optional=True, tooltip="Where in the picture the source may act (white)."),
    ]


def boxes_inputs() -> list:
    """Lists the inputs of a region as rectangles, which come behind all others, because graphs are older than these."""
    return [
        box_input(
            "boxes",
            "Instead of a region: boxes in the new picture's pixels, within which the source may act. From Create Bounding Boxes, "
            "Bounding Box, a detector or CoLoGen Read Grounding.",
        ),
        int_knob(
            "box_number",
            ALL,
            ALL,
            1000,
            "Which of the boxes: 1 is the first, 0 takes all. One canvas can so give each of several sources its place.",
            optional=True,
        ),
    ]


def position_knobs() -> list:
    """Lists knobs for where a source lies in the picture's coordinates."""
    return [
        io.Combo.Input(
            "position",
            options=list(POSITIONS),
            tooltip="aligned lays the source over the picture, shifted puts it beside, reference gives it a place of its own, as "
            "FLUX.2 was trained; auto follows the task, on FLUX.2 the model.",
            **advanced(),
        ),
        slider("shift_right", 1.0, -4, 4, "Where a shifted source lies, in picture widths.", **advanced()),
        slider("shift_down", 0.0, -4, 4, "Where a shifted source lies, in picture heights.", **advanced()),
    ]


def placement_knobs() -> list:
    """Lists knobs for where a source's K/V wait."""
    return [
        io.Combo.Input(
            "keep_on",
            options=list(PLACEMENTS),
            tooltip="Where the source waits between steps: gpu is fastest, fp8 takes half, cpu almost no memory.",
            **advanced(),
        ),
        io.Boolean.Input(
            "keep_between_runs",
            default=False,
            tooltip="Remember the source in main memory, so that a new seed starts at once.",
            **advanced(),
        ),
    ]


def name_knobs(**rest: Any) -> list:
    """Lists knobs for which expert and which router read a source, by their names."""
    return [
        io.String.Input(
            "expert",
            default="",
            tooltip="Name an expert to use it in every block; empty lets the router choose.",
            **rest,
        ),
        io.String.Input(
            "router",
            default="",
            tooltip="Name a stage of the bank to use its router, or final for the last; empty follows the task.",
            **rest,
        ),
    ]


def names_input() -> io.Model.Input:
    """Makes the input of the MODEL that knows the names of `name_knobs`."""
    return io.Model.Input(
        "model",
        optional=True,
        tooltip="The MODEL with the experts: a name that they do not have is then said here, not by the sampler.",
    )


def check_names(model, expert: str, router: str) -> tuple[str, str]:
    """Gives the names of an expert and a router as the bank on a MODEL writes them;
    as they were typed where there is none."""
    return (expert, router) if model is None else match_names(require_attachment(model).bank.info, expert, router)


def together_knob() -> io.Boolean.Input:
    """Makes the knob for whether a source without experts and the prompt's others see one another;
    older graphs have no value for it."""
    return io.Boolean.Input(
        "together",
        default=True,
        optional=True,
        tooltip="Without experts, the pictures of a prompt see one another, as FLUX.2 klein 9B-KV was trained. Off: this one is "
        "read by itself, whatever stands beside it.",
        **advanced(),
    )
