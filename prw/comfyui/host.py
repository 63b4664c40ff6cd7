"""One model call of ComfyUI as the method sees it, and the few things of the host that our patches share."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import comfy.ldm.flux.math
import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ..files.tensor_versions import IdentityKey
from ..flux.families import find_model_family
from ..weaving import Attend, BlockKV

SIGMA_MARGIN = 1 + 1e-6
"""A step on the bound between two parts is the later one's first, however its sigma was rounded."""


class ComfyHost:
    """The `Host` of source_pass.py for one model call of ComfyUI."""

    def __init__(self, base, transformer_options: dict[str, Any]):
        self.base, self.options = base, transformer_options
        self.flux = base.diffusion_model
        self.dtype = base.get_dtype_inference()

    @property
    def device(self) -> torch.device:
        return self.base.current_patcher.load_device

    def tokenize(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        return find_model_family(self.flux).tokenize(self.flux, latent, transformer_options=self.options)

    def scale_latent(self, latent: Tensor) -> Tensor:
        return self.base.process_latent_in(latent)

    def unscale_latent(self, latent: Tensor) -> Tensor:
        return self.base.process_latent_out(latent)

    def make_attention(self, pe: Tensor) -> Attend:
        override = self.options.get("optimized_attention_override")
        options = {} if override is None else {"optimized_attention_override": override}
        return partial(comfy.ldm.flux.math.attention, pe=pe, transformer_options=options)

    def state(self) -> Any:
        patcher = self.base.current_patcher
        hooks = [] if patcher.current_hooks is None else patcher.current_hooks.hooks
        injected = [injection for group in patcher.injections.values() for injection in group]
        replaced = patcher.object_patches.values()
        objects = IdentityKey(self.base, *injected, *replaced, *hooks)
        strengths = tuple(hook.strength for hook in hooks)
        return patcher.patches_uuid, objects, self.attention_state(), strengths, repr(self.flux.params)

    def attention_state(self) -> Any:
        return IdentityKey(self.options.get("optimized_attention_override"))

    def watch(self, blocks: Iterator[BlockKV], count: int) -> Iterator[BlockKV]:
        progress = comfy.utils.ProgressBar(count)
        for block in blocks:
            comfy.model_management.throw_exception_if_processing_interrupted()
            progress.update(1)
            yield block


def enlarge_noise_shape(base, noise_shape: Sequence[int], needed_bytes: int) -> Sequence[int]:
    """Gives the shape of a larger picture, whose memory by the host's estimate holds so many bytes more."""
    if not needed_bytes:
        return noise_shape
    per_column = base.memory_required([*noise_shape[:-1], 1])
    return [*noise_shape[:-1], noise_shape[-1] + int(needed_bytes / max(per_column, 1)) + 1]


def is_within(start: float, end: float, sigma: float, base) -> bool:
    """Says whether the sampler is in that part of the sampling; some samplers go past both ends of the schedule."""
    to_sigma = base.model_sampling.percent_to_sigma
    has_begun = start <= 0 or sigma <= to_sigma(start) * SIGMA_MARGIN
    return has_begun and (end >= 1 or sigma > to_sigma(end) * SIGMA_MARGIN)


def pause_malloc_graph() -> AbstractContextManager:
    """Keeps allocations, within, out of the graph that newer ComfyUIs record of a block's, which they replay later.

    K/V and masks that outlive the block are made within it. Does nothing where the host has no such graphs.
    """
    pause = getattr(getattr(comfy, "model_prefetch", None), "pause_malloc_graph", None)
    return pause() if pause else nullcontext()
