"""Two branches in one run of any sampler and guider of the host, by wrappers of the model patcher alone.

While both are drawn the sampler carries them as one batch, the concept's pictures first. Each model call is the guider's
own, once for each branch: so masks, cfg, control nets, memory and previews stay the host's. The formula stands in
personalization/dual_branch.py.
"""

from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

import comfy.model_management
import comfy.sampler_helpers
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..personalization.dual_branch import AuxiliaryProbe, BlendSettings, ConceptProbe
from ..personalization.marked_prompt import MARKED_TOKENS, list_marked_tokens
from ..positions import token_grid
from .check_host import check_flux, check_host
from .conditioning import AUXILIARY, map_sources
from .host import enlarge_noise_shape, is_within
from .patch import find_attachment
from .probe_hooks import add_probes, block_names, probe_fields

KEY = "cologen_two_branches"
"""Of our wrappers, and of a run's maps in its options."""


class RunMaps(NamedTuple):
    """What one run of both branches collects; no bare list, because the host copies the lists in its options."""

    maps: list[Tensor]


class DualBranch:
    """Draws an auxiliary branch beside whatever a MODEL is asked to draw."""

    def __init__(self, auxiliary: list, seed: int, blend: BlendSettings):
        marked = list_marked_tokens(auxiliary)
        if len(auxiliary) != 1 or not marked:
            raise ValueError(
                f"The auxiliary prompt has {len(auxiliary)} parts and {len(marked)} with marked words, expected one: make "
                f"it with CoLoGen Marked Prompt."
            )
        if "hooks" in auxiliary[0][1]:
            raise ValueError(
                "The auxiliary prompt has hooks, expected none: leave them out, only the sampler's own prompts can have "
                "any."
            )
        self.auxiliary, self.seed, self.blend = auxiliary, seed, blend
        self.maps: list[Tensor] = []
        """Of the last run: the concept's share (batch, rows, columns) in each model call of both branches."""

    def attach(self, model):
        """Returns a clone of MODEL that draws both branches."""
        check_host()
        check_flux(model.get_model_object("diffusion_model"))
        if find_dual_branch(model) is not None:
            raise ValueError("This MODEL already has two branches, expected one: use a single CoLoGen Dual Branch.")
        if not block_names(model.model, self.blend.first, self.blend.last):
            raise ValueError(
                f"The first block is {self.blend.first}, expected one of the model's {len(block_names(model.model))}, "
                f"counted from 0: choose an earlier one."
            )
        patched = model.clone()
        if self.blend.end == 0:
            return patched
        patched.set_attachments(KEY, self)
        patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, self.add_auxiliary)
        patched.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, self.reserve_memory)
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, self.wrap_sampler_sample)
        patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, self.wrap_predict_noise)
        return patched

    def add_auxiliary(self, executor, *args, **kwargs):
        """OUTER_SAMPLE wrapper: puts the auxiliary prompt beside the guider's, to be prepared with them."""
        conds = executor.class_obj.conds
        if not any(MARKED_TOKENS in entry for entry in conds.get("positive", ())):
            raise ValueError(
                "The prompt of the sampler has no marked words, expected the concept's: make it with "
                "CoLoGen Marked Prompt."
            )
        entries = comfy.sampler_helpers.convert_cond(self.auxiliary)
        if attachment := find_attachment(executor.class_obj.model_patcher):
            entries = [map_sources(options, attachment.fit_source) for options in entries]
        conds[AUXILIARY] = entries
        return executor(*args, **kwargs)

    def reserve_memory(self, executor, model, noise_shape, *args, **kwargs):
        """PREPARE_SAMPLING wrapper: asks the host for room for what the auxiliary probe records."""
        base = model.model
        rows, columns = token_grid(torch.empty(noise_shape, device="meta"), base.diffusion_model.patch_size)
        blocks = len(block_names(base, self.blend.first, self.blend.last))
        width = base.diffusion_model.hidden_size * comfy.model_management.dtype_size(base.get_dtype_inference())
        needed = noise_shape[0] * rows * columns * width * blocks
        return executor(model, enlarge_noise_shape(base, noise_shape, needed), *args, **kwargs)

    def wrap_sampler_sample(  # the host's signature
        self, executor, guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args, **kwargs
    ):
        """SAMPLER_SAMPLE wrapper: a second batch beside the first, from noise of its own, thrown away at the end."""
        if not self._are_both_drawn(float(sigmas[0]), guider.inner_model):
            self.maps = []
            return executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args, **kwargs)
        check_sampler(executor.class_obj)
        run = RunMaps([])
        extra_args["model_options"]["transformer_options"][KEY] = run
        fresh_noise = torch.randn(noise.shape, generator=torch.Generator().manual_seed(self.seed)).to(noise)
        auxiliary = (
            fresh_noise if noise.any() else noise
        )  # a run that goes on with an unfinished picture brings no noise
        both = (torch.cat((noise, auxiliary)), _repeat(latent_image), _repeat(denoise_mask))
        samples = executor(guider, sigmas, extra_args, callback and _preview_concept(callback), *both, *args, **kwargs)
        self.maps = run.maps
        return samples.chunk(2)[0]

    def wrap_predict_noise(self, executor, x, timestep, model_options, seed):
        """PREDICT_NOISE wrapper: the auxiliary branch, then the concept's; after the phase the concept's alone."""
        run: RunMaps | None = model_options["transformer_options"].get(KEY)
        if run is None:
            return executor(x, timestep, model_options, seed)
        guider, base = executor.class_obj, executor.class_obj.inner_model
        (x, auxiliary_x), (timestep, auxiliary_t) = x.chunk(2), timestep.expand(len(x)).chunk(2)
        if not self._are_both_drawn(float(timestep.max()), base):
            return torch.cat((executor(x, timestep, add_probes(model_options), seed), auxiliary_x))
        blocks = (self.blend.first, self.blend.last)
        auxiliary = AuxiliaryProbe(**probe_fields(base, guider.conds[AUXILIARY], x, model_options, *blocks))
        fields = probe_fields(base, guider.conds["positive"], x, model_options, *blocks)
        concept = ConceptProbe(**fields, auxiliary=auxiliary, blend=self.blend)
        with _replace_positive(guider, guider.conds[AUXILIARY]):
            auxiliary_noise = executor(auxiliary_x, auxiliary_t, add_probes(model_options, auxiliary), seed)
        concept_noise = executor(x, timestep, add_probes(model_options, concept), seed)
        if concept.maps:
            rows, _ = token_grid(x, base.diffusion_model.patch_size)
            run.maps.append(torch.stack(concept.maps).mean(0).unflatten(1, (rows, -1)).cpu())
        return torch.cat((concept_noise, auxiliary_noise))

    def _are_both_drawn(self, sigma: float, base) -> bool:
        return is_within(0, self.blend.end, sigma, base)


def find_dual_branch(model) -> DualBranch | None:
    """Finds the two branches of a MODEL, if it has them."""
    return model.get_attachment(KEY)


@contextmanager
def _replace_positive(guider, prompt: list):
    """Gives the guider, within, another positive prompt."""
    conds = guider.conds
    guider.conds = {**conds, "positive": prompt}
    try:
        yield
    finally:
        guider.conds = conds


def _preview_concept(callback: Callable) -> Callable:
    """Gives the sampler's callback, for the concept branch only."""

    def call(step, denoised, x, total):
        return callback(step, denoised.chunk(2)[0], x.chunk(2)[0], total)

    return call


def check_sampler(sampler) -> None:
    """Refuses the cfg_pp kind: it takes one unconditional prediction for the batch, but each branch has its own."""
    name = getattr(getattr(sampler, "sampler_function", None), "__name__", "").removeprefix("sample_")
    if name.endswith("cfg_pp"):
        raise ValueError(
            f"The sampler is {name}, expected none of the cfg_pp kind beside two branches: choose another."
        )


def _repeat(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else torch.cat((tensor, tensor))
