"""A guider that shares each step between the prompt with its sources and the plain noun."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import comfy.samplers
from comfy_api.latest import io
from torch import Tensor

from ..prw.comfyui.attention_probe import settings, watched
from ..prw.comfyui.conditioning import without_sources
from ..prw.comfyui.patch import check_flux, check_host, within
from ..prw.personalization.marked_prompt import words_of
from ..prw.personalization.shared_guidance import NounMap, Plan, mixed, on_latent, strongest
from .inputs.schema import SAMPLING, schema, slider

BATCH = "sampler_calc_cond_batch_function"
"""The host's option."""


class PersonalGuider(comfy.samplers.CFGGuider):
    """The host's guider with a prediction of two prompts in place of the positive's."""

    def __init__(self, model, plan: Plan):
        super().__init__(model)
        self.plan = plan

    def set_conds(self, positive, superclass, negative=None) -> None:
        conds = {"positive": positive, "superclass": superclass}
        self.inner_set_conds(conds if negative is None else {**conds, "negative": negative})

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006 - the host's signature
        begun = within(self.plan.switch, 1, float(timestep.max()), self.inner_model)
        plan = self.plan if begun else replace(self.plan, weight=0.0)
        if plan.weight != 0 and (plan.weight != 1 or plan.masked):
            shared = partial(self.shared, plan, model_options.get(BATCH))
            return self.guided("positive", x, timestep, {**model_options, BATCH: shared}, seed)
        return self.guided("positive" if plan.weight else "superclass", x, timestep, model_options, seed)

    def guided(self, prompt: str, x, timestep, model_options: dict[str, Any], seed) -> Tensor:
        """The host's own prediction for a prompt, with all that other packs add to it."""
        conds = self.conds.get("negative"), self.conds[prompt]
        return comfy.samplers.sampling_function(
            self.inner_model, x, timestep, *conds, self.cfg, model_options=model_options, seed=seed
        )

    def shared(self, plan: Plan, others: Callable | None, args: dict[str, Any]) -> list[Tensor]:
        """What the host asks for in place of a prediction for each of [positive, negative]; `others` is what another pack
        has there."""
        x, options, conds = args["input"], args["model_options"], args["conds"]
        superclass, weight = self.conds["superclass"], plan.weight
        if plan.masked:
            noun = NounMap(**settings(self.inner_model, superclass, x, options))
            options = watched(options, noun)
        if others is None:  # the negative second, which is where other packs look for it
            conds, rest = [*conds, superclass], (x, args["sigma"], options)
            concept, unconditional, plain = comfy.samplers.calc_cond_batch(self.inner_model, conds, *rest)
        else:
            concept, unconditional = others(args)
            (plain,) = comfy.samplers.calc_cond_batch(self.inner_model, [superclass], x, args["sigma"], options)
        if plan.masked:
            places = strongest(noun.mean(), plan.area)
            weight = weight * on_latent(places, *x.shape[-2:], self.inner_model.diffusion_model.patch_size)
        return [mixed(concept, plain, weight), unconditional]


class CoLoGenPersonalGuider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CoLoGenPersonalGuider",
            display_name="CoLoGen Personal Guider",
            category=SAMPLING,
            description="Shares the sampling between a subject (the prompt with its sources) and its plain noun, which knows "
            "more scenes. Switching: switch 0.14, weight 1, area 1. Mixed: 0, 0.5, 1. Multi-stage: 0.2, 0.57, 1. "
            "Masked: 0.06, 0.5, 0.3. For the stock custom sampler.",
            search_aliases=[
                "guider",
                "personalization",
                "superclass",
                "switching",
                "mixed sampling",
                "source guidance",
            ],
            inputs=[
                io.Model.Input("model", tooltip="FLUX.1, after CoLoGen Apply if the prompt has sources."),
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
            ],
            outputs=[io.Guider.Output(tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls, model, positive, switch: float, weight: float, area: float, cfg: float, superclass=None, negative=None
    ) -> io.NodeOutput:
        plan = Plan(switch, weight, area)
        superclass = without_sources(positive) if superclass is None else superclass
        if plan.masked and not words_of(superclass):
            raise ValueError(
                "The superclass has no marked words, expected its noun: make it with CoLoGen Marked Prompt, or set "
                "area to 1."
            )
        if plan.masked:
            check_host()
            check_flux(model.get_model_object("diffusion_model"))
        if cfg != 1 and negative is None:
            raise ValueError(f"cfg is {cfg} without a negative prompt, expected 1: connect one, or set cfg to 1.")
        guider = PersonalGuider(model, plan)
        guider.set_conds(positive, superclass, negative)
        guider.set_cfg(cfg)
        return io.NodeOutput(guider)
