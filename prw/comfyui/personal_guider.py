"""A guider that shares each step between the prompt with its sources and its superclass, the plain noun."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import comfy.samplers
from torch import Tensor

from ..personalization.shared_guidance import (
    NounProbe,
    SharedStepSettings,
    expand_to_latent,
    mix_predictions,
    select_strongest,
)
from .host import is_within
from .probe_hooks import add_probes, probe_fields

CALC_COND_BATCH = "sampler_calc_cond_batch_function"
"""The host's option for a function in place of its predictions of [positive, negative]."""


class PersonalGuider(comfy.samplers.CFGGuider):
    """The host's guider with a prediction of two prompts in place of the positive's."""

    def __init__(self, model, settings: SharedStepSettings):
        super().__init__(model)
        self.settings = settings

    def set_conds(self, positive: list, superclass: list, negative: list | None = None) -> None:
        conds = {"positive": positive, "superclass": superclass}
        self.inner_set_conds(conds if negative is None else {**conds, "negative": negative})

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006 - the host's signature
        has_begun = is_within(self.settings.switch, 1, float(timestep.max()), self.inner_model)
        settings = self.settings if has_begun else replace(self.settings, weight=0.0)
        if settings.weight != 0 and (settings.weight != 1 or settings.is_masked):
            predict = partial(self.predict_shared, settings, model_options.get(CALC_COND_BATCH))
            return self.predict_one("positive", x, timestep, {**model_options, CALC_COND_BATCH: predict}, seed)
        return self.predict_one("positive" if settings.weight else "superclass", x, timestep, model_options, seed)

    def predict_one(self, prompt: str, x, timestep, model_options: dict[str, Any], seed) -> Tensor:
        """Gives the host's own prediction for a prompt, with all that other packs add to it."""
        conds = self.conds.get("negative"), self.conds[prompt]
        return comfy.samplers.sampling_function(
            self.inner_model, x, timestep, *conds, self.cfg, model_options=model_options, seed=seed
        )

    def predict_shared(
        self, settings: SharedStepSettings, calc_cond_batch: Callable | None, args: dict[str, Any]
    ) -> list[Tensor]:
        """Predicts for [positive, negative], the positive mixed with the superclass.

        `calc_cond_batch` is another pack's function in the same place.
        """
        x, options, conds = args["input"], args["model_options"], args["conds"]
        superclass, probe = self.conds["superclass"], None
        if settings.is_masked:
            probe = NounProbe(**probe_fields(self.inner_model, superclass, x, options))
            options = add_probes(options, probe)
        if calc_cond_batch is None:  # the negative second, which is where other packs look for it
            conds, rest = [*conds, superclass], (x, args["sigma"], options)
            concept, unconditional, plain = comfy.samplers.calc_cond_batch(self.inner_model, conds, *rest)
        else:
            concept, unconditional = calc_cond_batch(args)
            (plain,) = comfy.samplers.calc_cond_batch(self.inner_model, [superclass], x, args["sigma"], options)
        weight: float | Tensor = settings.weight
        if probe is not None:
            height, width = x.shape[-2:]
            area = select_strongest(probe.average(), settings.area)
            weight = weight * expand_to_latent(area, height, width, self.inner_model.diffusion_model.patch_size)
        return [mix_predictions(concept, plain, weight), unconditional]
