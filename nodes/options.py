"""The knobs of a source for the task nodes, and when each source acts."""

from dataclasses import replace

from comfy_api.latest import io
from torch import Tensor

from ..prw.comfyui.boxes import ALL, read_place
from ..prw.comfyui.conditioning import change_source, list_sources
from ..prw.comfyui.make_source import SourceOptions
from ..prw.router import ABLATIONS
from ..prw.source import CURVES, MODES
from .inputs.preset import preset_knob
from .inputs.schema import CATEGORY, OptionsType, make_schema, slider
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

OUTPUT = "For a CoLoGen task."
BY_LEAN = "as lean says"
AS_ROUTED = "as routed"
AS_TYPED = "as curve says"
OTHER_OPTIONS = OptionsType.Input("options", optional=True, tooltip="Other options that these are added to.")


class CoLoGenSourceOptions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenSourceOptions",
            display_name="CoLoGen Source Options",
            category=CATEGORY,
            description="How strongly, when and where a task's source acts, how large it is and where it waits.",
            search_aliases=["strength", "start end", "region", "timestep range", "controlnet advanced"],
            inputs=[
                *strength_knobs(),
                *position_knobs(),
                *placement_knobs(),
                OTHER_OPTIONS,
                together_knob(),
                *boxes_inputs(),
            ],
            outputs=[OptionsType.Output(display_name="options", tooltip=OUTPUT)],
        )

    @classmethod
    def execute(
        cls,
        strength: float,
        expert_strength: float,
        start: float,
        end: float,
        size: int,
        position: str,
        shift_right: float,
        shift_down: float,
        keep_on: str,
        keep_between_runs: bool,
        region: Tensor | None = None,
        options: SourceOptions | None = None,
        together: bool = True,
        boxes=None,
        box_number: int = ALL,
    ) -> io.NodeOutput:
        knobs = dict(strength=strength, expert_strength=expert_strength, start=start, end=end, size=size)
        where = dict(position=position, shift=(shift_down, shift_right), placement=keep_on, keep=keep_between_runs)
        place = read_place(region, boxes, box_number)
        whole = replace(options or SourceOptions(), **knobs, **where, **place, together=together)
        return io.NodeOutput(whole)


class CoLoGenRouting(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenRouting",
            display_name="CoLoGen Routing",
            category=CATEGORY,
            description="Steers which expert reads the source: towards what things are or where they are, or one by name.",
            search_aliases=["router", "expert", "block weight", "concept", "localization", "lora block weight"],
            inputs=[
                slider(
                    "lean",
                    0.0,
                    -1,
                    1,
                    "-1 is concept: experts of what things are win. 0 is balanced: the router decides. 1 is localisation: "
                    "experts of where they are.",
                ),
                *name_knobs(),
                io.String.Input(
                    "curve",
                    default="",
                    tooltip="How strong experts are from FLUX's first block to its last, such as 1, 1, 0: early blocks lay "
                    "things out, late ones finish surfaces. Empty: as strong in all.",
                ),
                OTHER_OPTIONS,
                io.Combo.Input(
                    "mode",
                    options=[BY_LEAN, *MODES],
                    optional=True,
                    tooltip="lean by name, in place of the number above: concept is -1, balanced 0, localisation 1.",
                ),
                io.Combo.Input(
                    "older",
                    options=[AS_ROUTED, *ABLATIONS],
                    optional=True,
                    tooltip="Whether older experts matter: draw once as routed, once with their blocks given to the newest expert "
                    "or to none, and compare.",
                ),
                names_input(),
                preset_knob("shape", CURVES, "The curve by name, in place of the one above.", AS_TYPED),
            ],
            outputs=[OptionsType.Output(display_name="options", tooltip=OUTPUT)],
        )

    @classmethod
    def execute(
        cls,
        lean: float,
        expert: str,
        router: str,
        curve: str,
        options: SourceOptions | None = None,
        mode: str = BY_LEAN,
        older: str = AS_ROUTED,
        model: io.Model.Type | None = None,
        shape: str = AS_TYPED,
    ) -> io.NodeOutput:
        expert, router = check_names(model, expert.strip(), router.strip())
        knobs = replace(
            options or SourceOptions(),
            lean=MODES.get(mode, lean),
            expert=expert,
            router=router,
            curve=CURVES[shape] if shape in CURVES else parse_curve(curve),
            older="" if older == AS_ROUTED else older,
        )
        return io.NodeOutput(knobs)


class CoLoGenExpertSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenExpertSchedule",
            display_name="CoLoGen Expert Schedule",
            category=CATEGORY,
            description="Says when each source of a prompt acts: one lays things out, another takes over for the details.",
            search_aliases=["timestep range", "start end", "keyframes", "prompt scheduling"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning", tooltip="A prompt with sources, in the order in which they were added."
                ),
                io.String.Input(
                    "windows",
                    default="0 to 0.5, 0.5 to 1",
                    tooltip="From and to for each source, as parts of the sampling. Sources beyond the list keep theirs.",
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="For the sampler.")],
        )

    @classmethod
    def execute(cls, conditioning, windows: str) -> io.NodeOutput:
        spans = parse_windows(windows)
        count = max((len(list_sources(options)) for _, options in conditioning), default=0)
        if not count:
            raise ValueError(
                "The conditioning has no source, expected one at least: put a task, such as CoLoGen Edit, before this node."
            )
        if len(spans) > count:
            raise ValueError(
                f"There are {len(spans)} windows for {count} sources, expected one a source at most: remove the others."
            )
        for i, (start, end) in enumerate(spans):
            conditioning = change_source(conditioning, i, start=start, end=end)
        return io.NodeOutput(conditioning)


def parse_curve(text: str) -> tuple[float, ...]:
    """Parses strengths from FLUX's first block to its last: "1, 0.5, 0"."""
    try:
        return tuple(float(word) for word in text.replace(";", ",").split(",") if word.strip())
    except ValueError:
        raise ValueError(f"The curve is {text[:60]!r}, expected numbers with commas: type it as 1, 0.5, 0.") from None


def parse_windows(text: str) -> list[tuple[float, float]]:
    """Parses from and to for each source: "0 to 0.5, 0.5 to 1"."""
    windows = []
    for part in filter(str.strip, text.replace(";", ",").split(",")):
        try:
            start, end = (float(word) for word in part.split("to"))
        except ValueError:
            raise ValueError(f"A window is {part.strip()[:40]!r}, expected from and to: type it as 0 to 0.5.") from None
        windows.append((start, end))
    return windows
