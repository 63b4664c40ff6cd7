"""The general source node: any task, all knobs."""

from comfy_api.latest import io
from torch import Tensor

from ..prw.bank import Bank
from ..prw.conditioning import add_source
from ..prw.fitting import GRID
from ..prw.source import PLACEMENTS, POSITIONS
from ..prw.tasks import TASKS
from .schema import CATEGORY, BankType, advanced, schema, slider
from .sourcing import Options, one_mask, source_of


class CoLoGenSource(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
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
                slider(
                    "strength", 1.0, 0, 4, "How strongly the picture reads the source. 0 switches it off; 1 is free."
                ),
                slider(
                    "expert_strength", 1.0, -2, 4, "How far the experts bend the source. 0: FLUX's own reading of it."
                ),
                slider(
                    "start", 0.0, 0, 1, "From this part of the sampling on the source is read (0 is the first step)."
                ),
                slider("end", 1.0, 0, 1, "From here on the source is left out: lower gives the prompt the last word."),
                io.Int.Input(
                    "size",
                    default=1024,
                    min=0,
                    max=4096,
                    step=GRID,
                    tooltip="Shrinks the source to this longest side in pixels; 0 never. 512 costs a quarter of 1024.",
                ),
                io.Mask.Input("region", optional=True, tooltip="Where in the picture the source may act (white)."),
                *rare_inputs(),
                BankType.Input(
                    "experts",
                    optional=True,
                    tooltip="Connect it for imported experts: the picture is then fitted, and holes filled, as they know it.",
                ),
                io.Mask.Input(
                    "hole",
                    optional=True,
                    tooltip="White is painted over, as the task's experts know holes: to be filled.",
                ),
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
    ) -> io.NodeOutput:
        options = Options(
            strength=strength,
            expert_strength=expert_strength,
            start=start,
            end=end,
            size=size,
            region=None if region is None else one_mask(region),
            position=position,
            shift=(shift_down, shift_right),
            placement=keep_on,
            keep=keep_between_runs,
            lean=lean,
            expert=expert.strip(),
            router=router.strip(),
        )
        return io.NodeOutput(add_source(conditioning, source_of(vae, image, task, options, experts, hole)))


def rare_inputs() -> list:
    """Knobs that few need, folded away."""
    return [
        io.Combo.Input(
            "position",
            options=list(POSITIONS),
            tooltip="aligned lays the source over the picture, shifted puts it beside; auto follows the task.",
            **advanced(),
        ),
        slider("shift_right", 1.0, -4, 4, "Where a shifted source lies, in picture widths.", **advanced()),
        slider("shift_down", 0.0, -4, 4, "Where a shifted source lies, in picture heights.", **advanced()),
        slider(
            "lean",
            0.0,
            -1,
            1,
            "-1 makes concept experts win (what things are), 1 localisation experts (where they are).",
            **advanced(),
        ),
        io.String.Input(
            "expert",
            default="",
            tooltip="Name an expert to use it in every block; empty lets the router choose.",
            **advanced(),
        ),
        io.String.Input(
            "router",
            default="",
            tooltip="Name a stage of the bank to use its router, or final for the last; empty follows the task.",
            **advanced(),
        ),
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


def _line(item) -> str:
    name, task = item
    return f"{name}: {task.source}"
