"""The general source node: any task, all knobs."""

from comfy_api.latest import io
from torch import Tensor

from ..prw.bank import Bank
from ..prw.conditioning import add_source
from ..prw.fitting import FIT, GRID, filled, rgb
from ..prw.habits import Habits
from ..prw.pick import habits_of
from ..prw.source import PLACEMENTS, POSITIONS, Routing, Source
from ..prw.tasks import TASKS
from .schema import CATEGORY, BankType, advanced, schema


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
                _slider(
                    "strength", 1.0, 0, 4, "How strongly the picture reads the source. 0 switches it off; 1 is free."
                ),
                _slider(
                    "expert_strength", 1.0, -2, 4, "How far the experts bend the source. 0: FLUX's own reading of it."
                ),
                _slider(
                    "start", 0.0, 0, 1, "From this part of the sampling on the source is read (0 is the first step)."
                ),
                _slider("end", 1.0, 0, 1, "From here on the source is left out: lower gives the prompt the last word."),
                io.Int.Input(
                    "size",
                    default=1024,
                    min=0,
                    max=4096,
                    step=GRID,
                    tooltip="Shrinks the source to this longest side in pixels; 0 never. 512 costs a quarter of 1024.",
                ),
                io.Mask.Input("region", optional=True, tooltip="Where in the picture the source may act (white)."),
                *_rare_inputs(),
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
        routing = Routing(
            task=task,
            router=router.strip(),
            expert=expert.strip(),
            lean=lean,
            strength=expert_strength,
            position=position,
            shift=(shift_down, shift_right),
        )
        if vae is None:
            raise ValueError("There is no VAE: connect FLUX.1's (ae.safetensors), from Load VAE or Load FLUX.")
        habits = Habits() if experts is None else habits_of(experts, routing)
        image = rgb(image) if hole is None else filled(rgb(image), holes(hole, len(image)), habits.hole)
        source = Source(
            latent=vae.encode(FIT[habits.fit](image, habits.side or size)).detach().clone(),
            routing=routing,
            strength=strength,
            start=start,
            end=end,
            region=None if region is None else one_mask(region),
            placement=keep_on,
            keep=keep_between_runs,
        )
        return io.NodeOutput(add_source(conditioning, source))


def holes(hole: Tensor, images: int) -> Tensor:
    """A MASK as (batch or 1, height, width)."""
    masks = hole.reshape(-1, *hole.shape[-2:])
    if len(masks) not in (1, images):
        raise ValueError(f"The hole holds {len(masks)} masks for {images} images, expected one, or one an image.")
    return masks


def one_mask(region: Tensor) -> Tensor:
    """A MASK as (height, width); one for all pictures of a batch."""
    masks = region.reshape(-1, *region.shape[-2:])
    if len(masks) != 1:
        raise ValueError(f"The region holds {len(masks)} masks, expected one: give each its own CoLoGen Source.")
    if not masks.any():
        raise ValueError(
            "The region is empty, expected some white: paint it, or disconnect it (Load Image gives an empty mask "
            "for a picture without transparency)."
        )
    return masks[0].clone()


def _rare_inputs() -> list:
    """Knobs that few need, folded away."""
    return [
        io.Combo.Input(
            "position",
            options=list(POSITIONS),
            tooltip="aligned lays the source over the picture, shifted puts it beside; auto follows the task.",
            **advanced(),
        ),
        _slider("shift_right", 1.0, -4, 4, "Where a shifted source lies, in picture widths.", **advanced()),
        _slider("shift_down", 0.0, -4, 4, "Where a shifted source lies, in picture heights.", **advanced()),
        _slider(
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


def _slider(name: str, default: float, low: float, high: float, tooltip: str, **rest):
    return io.Float.Input(name, default=default, min=low, max=high, step=0.01, tooltip=tooltip, **rest)


def _line(item) -> str:
    name, task = item
    return f"{name}: {task.source}"
