"""A guider that shares each step between the prompt with its sources and the plain noun."""

from dataclasses import astuple

from comfy_api.latest import io

from ..prw.comfyui.check_host import check_flux, check_host
from ..prw.comfyui.conditioning import remove_sources
from ..prw.comfyui.personal_guider import PersonalGuider
from ..prw.personalization.marked_prompt import list_marked_tokens
from ..prw.personalization.shared_guidance import WAYS, SharedStepSettings
from .inputs.preset import NUMBERS, preset_knob
from .inputs.schema import SAMPLING, make_schema, slider


class CoLoGenPersonalGuider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenPersonalGuider",
            display_name="CoLoGen Personal Guider",
            category=SAMPLING,
            description="Shares the sampling between a subject (the prompt with its sources) and its plain noun, which knows "
            "more scenes. For the stock custom sampler.",
            search_aliases=[
                "guider",
                "personalization",
                "superclass",
                "switching",
                "mixed sampling",
                "source guidance",
            ],
            inputs=[
                io.Model.Input("model", tooltip="FLUX.1 or FLUX.2, after CoLoGen Apply if the prompt has sources."),
                io.Conditioning.Input("positive", tooltip="The prompt with the subject: its sources, its own words."),
                slider(
                    "switch",
                    0.14,
                    0,
                    1,
                    "Up to this part of the sampling the plain noun lays out the scene; it is free.",
                ),
                slider(
                    "weight",
                    1.0,
                    -10,
                    10,
                    "The subject's part of each step from then on. Above 1 it leads towards the "
                    "sources, past them. Any but 0 and 1 takes two model calls a step, and so does an area below 1.",
                ),
                slider(
                    "area",
                    1.0,
                    0,
                    1,
                    "The part of the picture that is the subject's: where the marked noun is. 1 is all of it.",
                ),
                slider("cfg", 1.0, 0, 100, "1 for FLUX.1-dev and schnell. Others need a negative prompt."),
                io.Conditioning.Input(
                    "superclass",
                    optional=True,
                    tooltip="The prompt with a plain noun, from CoLoGen Marked Prompt if area is below 1. Open: the "
                    "positive prompt without its sources.",
                ),
                io.Conditioning.Input("negative", optional=True, tooltip="The negative prompt, where cfg is not 1."),
                preset_knob(
                    "preset",
                    {name: astuple(way) for name, way in WAYS.items()},
                    "A way by name: its switch, weight and area act in place of the three above.",
                ),
            ],
            outputs=[io.Guider.Output(tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        switch: float,
        weight: float,
        area: float,
        cfg: float,
        superclass=None,
        negative=None,
        preset: str = NUMBERS,
    ) -> io.NodeOutput:
        settings = WAYS.get(preset) or SharedStepSettings(switch, weight, area)
        superclass = remove_sources(positive) if superclass is None else superclass
        if settings.is_masked and not list_marked_tokens(superclass):
            raise ValueError(
                "The superclass has no marked words, expected its noun: make it with CoLoGen Marked Prompt, or set "
                "area to 1."
            )
        if settings.is_masked:
            check_host()
            check_flux(model.get_model_object("diffusion_model"))
        if cfg != 1 and negative is None:
            raise ValueError(f"cfg is {cfg} without a negative prompt, expected 1: connect one, or set cfg to 1.")
        guider = PersonalGuider(model, settings)
        guider.set_conds(positive, superclass, negative)
        guider.set_cfg(cfg)
        return io.NodeOutput(guider)
