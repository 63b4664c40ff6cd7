"""The general source node: any task, all knobs."""

from comfy_api.latest import io
from torch import Tensor

from ..prw.bank.bank import Bank
from ..prw.comfyui.boxes import ALL, read_place
from ..prw.comfyui.conditioning import add_source, read_prompt
from ..prw.comfyui.make_source import SourceOptions, make_source
from ..prw.tasks import TASKS
from .inputs.schema import CATEGORY, advanced, make_schema, slider
from .inputs.source import (
    boxes_inputs,
    check_names,
    name_knobs,
    names_input,
    placement_knobs,
    position_knobs,
    strength_knobs,
    together_knob,
)
from .inputs.tasks import experts_input


class CoLoGenSource(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenSource",
            display_name="CoLoGen Source",
            category=CATEGORY,
            description="Adds a source image to a prompt: what to fill, follow, keep or edit. Several can be chained.",
            search_aliases=["controlnet", "reference", "inpaint", "kontext edit", "ip adapter", "subject", "grounding"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The prompt, or another source's output."),
                io.Vae.Input("vae", tooltip="FLUX's VAE."),
                io.Image.Input("image", tooltip="The source. A batch gives each picture of a latent batch its own."),
                io.Combo.Input("task", options=list(TASKS), tooltip="\n".join(map(_line, TASKS.items()))),
                *strength_knobs(),
                *position_knobs(),
                *routing_knobs(),
                *placement_knobs(),
                experts_input(),
                io.Mask.Input(
                    "hole",
                    optional=True,
                    tooltip="White is painted over, as the task's experts know holes: to be filled.",
                ),
                together_knob(),
                io.Conditioning.Input(
                    "prompt",
                    optional=True,
                    tooltip="What a Diffusion Template reads beside the picture, if not this prompt itself; other experts read none.",
                ),
                names_input(),
                *boxes_inputs(),
            ],
            outputs=[io.Conditioning.Output(tooltip="For the sampler or the next source.")],
        )

    @classmethod
    def execute(
        cls,
        conditioning,
        vae,
        image: Tensor,
        task: str,
        strength: float,
        expert_strength: float,
        start: float,
        end: float,
        size: int,
        position: str,
        shift_right: float,
        shift_down: float,
        lean: float,
        expert: str,
        router: str,
        keep_on: str,
        keep_between_runs: bool,
        region: Tensor | None = None,
        experts: Bank | None = None,
        hole: Tensor | None = None,
        together: bool = True,
        prompt: list | None = None,
        model: io.Model.Type | None = None,
        boxes=None,
        box_number: int = ALL,
    ) -> io.NodeOutput:
        expert, router = check_names(model, expert.strip(), router.strip())
        options = SourceOptions(
            strength=strength,
            expert_strength=expert_strength,
            start=start,
            end=end,
            size=size,
            **read_place(region, boxes, box_number),
            position=position,
            shift=(shift_down, shift_right),
            placement=keep_on,
            keep=keep_between_runs,
            lean=lean,
            expert=expert,
            router=router,
            together=together,
            prompt=None if prompt is None else read_prompt(prompt),
        )
        return io.NodeOutput(add_source(conditioning, make_source(vae, image, task, options, experts, hole)))


def routing_knobs() -> list:
    """Lists knobs for which experts read the source."""
    return [
        slider(
            "lean",
            0.0,
            -1,
            1,
            "-1 makes concept experts win (what things are), 1 localisation experts (where they are).",
            **advanced(),
        ),
        *name_knobs(**advanced()),
    ]


def _line(item) -> str:
    name, task = item
    return f"{name}: {task.source}"
