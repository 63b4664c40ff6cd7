"""Two branches in one run of any sampler and guider of the host, by the model patcher alone.

While they are both drawn the sampler carries them as one batch, the concept's pictures first. Each model call is the
guider's own, once for each: so masks, cfg, control nets, areas of memory and previews stay the host's.
"""

from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

import comfy.model_management
import comfy.sampler_helpers
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..personalization.dual_branch import AuxiliaryBranch, Blend, ConceptBranch
from ..personalization.marked_prompt import WORDS, words_of
from ..positions import token_grid
from .attention_probe import block_names, settings, watched
from .patch import check_flux, check_host, with_room, within

KEY = "cologen_two_branches"
"""Of our wrappers, of the auxiliary prompt beside the guider's own, and of a run's maps in its options."""


class Run(NamedTuple):
    """What one run of both branches collects; no list, because the host copies the lists in its options."""

    maps: list[Tensor]


class TwoBranches:
    """An auxiliary branch beside whatever a MODEL is asked to draw."""

    def __init__(self, auxiliary: list, seed: int, blend: Blend):
        if len(auxiliary) != 1 or not words_of(auxiliary):
            raise ValueError(
                f"The auxiliary prompt has {len(auxiliary)} parts and {len(words_of(auxiliary))} with marked words, "
                f"expected one: make it with CoLoGen Marked Prompt."
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
        """A clone of MODEL that draws both."""
        check_host()
        check_flux(model.get_model_object("diffusion_model"))
        if branches_of(model) is not None:
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
        patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, self.tell)
        patched.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, self.announce)
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, self.sample)
        patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, self.predict)
        return patched

    def tell(self, executor, *args, **kwargs):
        """OUTER_SAMPLE wrapper: puts the auxiliary prompt beside the guider's, to be prepared with them."""
        conds = executor.class_obj.conds
        if not any(WORDS in entry for entry in conds.get("positive", ())):
            raise ValueError(
                "The prompt of the sampler has no marked words, expected the concept's: make it with "
                "CoLoGen Marked Prompt."
            )
        conds[KEY] = comfy.sampler_helpers.convert_cond(self.auxiliary)
        return executor(*args, **kwargs)

    def announce(self, executor, model, noise_shape, *args, **kwargs):
        """PREPARE_SAMPLING wrapper: asks the host for room for what the auxiliary branch leaves."""
        base = model.model
        rows, columns = token_grid(torch.empty(noise_shape, device="meta"), base.diffusion_model.patch_size)
        blocks = len(block_names(base, self.blend.first, self.blend.last))
        width = base.diffusion_model.hidden_size * comfy.model_management.dtype_size(base.get_dtype_inference())
        noise_shape = with_room(base, noise_shape, noise_shape[0] * rows * columns * width * blocks)
        return executor(model, noise_shape, *args, **kwargs)

    def sample(
        self, executor, guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args, **kwargs
    ):
        """SAMPLER_SAMPLE wrapper: a second batch beside the first, from noise of its own, thrown away at the end."""
        if not self._both(float(sigmas[0]), guider.inner_model):
            return executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args, **kwargs)
        refuse_sampler(executor.class_obj)
        run = Run([])
        extra_args["model_options"]["transformer_options"][KEY] = run
        fresh = torch.randn(noise.shape, generator=torch.Generator().manual_seed(self.seed)).to(noise)
        other = fresh if noise.any() else noise  # a run that goes on with an unfinished picture brings no noise
        both = (torch.cat((noise, other)), _twice(latent_image), _twice(denoise_mask))
        samples = executor(guider, sigmas, extra_args, callback and _first(callback), *both, *args, **kwargs)
        self.maps = run.maps
        return samples.chunk(2)[0]

    def predict(self, executor, x, timestep, model_options, seed):
        """PREDICT_NOISE wrapper: the auxiliary branch, then the concept's; after the phase the concept's alone."""
        run: Run | None = model_options["transformer_options"].get(KEY)
        if run is None:
            return executor(x, timestep, model_options, seed)
        guider, base = executor.class_obj, executor.class_obj.inner_model
        (x, x_other), (timestep, t_other) = x.chunk(2), timestep.expand(len(x)).chunk(2)
        if not self._both(float(timestep.max()), base):
            return torch.cat((executor(x, timestep, watched(model_options), seed), x_other))
        blocks = (self.blend.first, self.blend.last)
        auxiliary = AuxiliaryBranch(**settings(base, guider.conds[KEY], x, model_options, *blocks))
        concept = ConceptBranch(
            **settings(base, guider.conds["positive"], x, model_options, *blocks), auxiliary=auxiliary, blend=self.blend
        )
        with _asked(guider, guider.conds[KEY]):
            other = executor(x_other, t_other, watched(model_options, auxiliary), seed)
        own = executor(x, timestep, watched(model_options, concept), seed)
        if concept.maps:
            rows, _ = token_grid(x, base.diffusion_model.patch_size)
            run.maps.append(torch.stack(concept.maps).mean(0).unflatten(1, (rows, -1)).cpu())
        return torch.cat((own, other))

    def _both(self, sigma: float, base) -> bool:
        return within(0, self.blend.end, sigma, base)


def branches_of(model) -> TwoBranches | None:
    return model.get_attachment(KEY)


@contextmanager
def _asked(guider, prompt: list):
    """The guider with another prompt for a moment."""
    conds = guider.conds
    guider.conds = {**conds, "positive": prompt}
    try:
        yield
    finally:
        guider.conds = conds


def _first(callback: Callable) -> Callable:
    """Previews of the concept branch only."""

    def call(step, denoised, x, total):
        return callback(step, denoised.chunk(2)[0], x.chunk(2)[0], total)

    return call


def refuse_sampler(sampler) -> None:
    """Those of the cfg_pp kind take one unconditional prediction for the whole batch, of which each branch has its own."""
    name = getattr(getattr(sampler, "sampler_function", None), "__name__", "").removeprefix("sample_")
    if name.endswith("cfg_pp"):
        raise ValueError(
            f"The sampler is {name}, expected none of the cfg_pp kind beside two branches: choose another."
        )


def _twice(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else torch.cat((tensor, tensor))
