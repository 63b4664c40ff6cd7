"""Numbers that FLUX.2 was taught to read, such as a picture's brightness."""

from comfy_api.latest import io
from torch import Tensor

from ..prw.comfyui.conditioning import add_source
from ..prw.comfyui.masks import check_region
from ..prw.learned_keys import LearnedKeys, LearnedSource
from ..training.comfyui.folders import bank_path, list_learned_keys, read_stamp
from .inputs.schema import CATEGORY, make_schema, slider


class CoLoGenLearnedKeys(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenLearnedKeys",
            display_name="Learned Keys (CoLoGen)",
            category=CATEGORY,
            description="Adds a number to a prompt that FLUX.2 was taught to read, such as how bright the picture is.",
            search_aliases=["brightness", "diffusion template", "diffsynth", "age", "sharpness", "slider"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The prompt, or another source's output."),
                io.Combo.Input(
                    "file",
                    options=list_learned_keys(),
                    tooltip="A template for one number (Brightness), from models/cologen. It must be made for the FLUX.2 you load.",
                ),
                io.Float.Input(
                    "value",
                    default=0.5,
                    min=-10000,
                    max=10000,
                    step=0.01,
                    tooltip="The number, as the template's authors count it: Brightness goes from 0 (dark) to 1 (bright).",
                ),
                slider("strength", 1.0, 0, 4, "How strongly the picture reads the number. 0 switches it off; 1 is as trained."),
                slider("start", 0.0, 0, 1, "From this part of the sampling on the number is read (0 is the first step)."),
                slider("end", 1.0, 0, 1, "From here on the number is left out: lower gives the prompt the last word."),
                io.Mask.Input("region", optional=True, tooltip="Where in the picture the number may act (white)."),
            ],
            outputs=[
                io.Conditioning.Output(tooltip="For the sampler or the next source; the MODEL needs CoLoGen Apply.")
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, file: str, **rest):
        return read_stamp(bank_path(file))

    @classmethod
    def execute(
        cls,
        conditioning,
        file: str,
        value: float,
        strength: float,
        start: float,
        end: float,
        region: Tensor | None = None,
    ) -> io.NodeOutput:
        region = None if region is None else check_region(region)
        knobs = dict(strength=strength, start=start, end=end, region=region)
        return io.NodeOutput(add_source(conditioning, LearnedSource(LearnedKeys.open(bank_path(file)), value, **knobs)))
