"""PRW on ComfyUI's FLUX, by the model patcher alone. The only file of prw/ that imports the host.

Sources travel in CONDITIONING (conditioning.py). An APPLY_MODEL wrapper takes them out of each call,
makes their K/V outside the blocks, and hands them on in transformer_options; the `attn1_patch`
appends them in every block. A PREPARE_SAMPLING wrapper announces their memory. Nothing else of the
host is touched, so samplers, LoRA, fp8, offloading and other patches behave as always.
"""

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import comfy.ldm.flux.layers
import comfy.ldm.flux.math
import comfy.ldm.flux.model
import comfy.model_management
import comfy.patcher_extension
import comfyui_version
import torch
from torch import Tensor

from ..appended_kv import OPTION, Appendix
from ..attachment import Attachment
from ..bank.bank import Bank
from ..files.tensor_versions import Same
from ..positions import token_grid
from ..router import Route
from ..select_experts import columns_of
from ..source import LATENT_CHANNELS, Source
from ..weaving import Attend, named_blocks
from .conditioning import COND, sources_of

ROUNDED = 1 + 1e-6
"""A step on the bound between two parts is the later one's first, however its sigma was rounded."""


class ComfyHost:
    """One model call of the host, as the method sees it."""

    def __init__(self, base, transformer_options: dict[str, Any]):
        self.base, self.options = base, transformer_options
        self.flux = base.diffusion_model
        self.dtype = base.get_dtype_inference()

    def tokens(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        return self.flux.process_img(latent, transformer_options=self.options)

    def latent_in(self, latent: Tensor) -> Tensor:
        return self.base.process_latent_in(latent)

    def latent_out(self, latent: Tensor) -> Tensor:
        return self.base.process_latent_out(latent)

    def attend(self, pe: Tensor) -> Attend:
        override = self.options.get("optimized_attention_override")
        options = {} if override is None else {"optimized_attention_override": override}
        return partial(comfy.ldm.flux.math.attention, pe=pe, transformer_options=options)

    def state(self) -> Any:
        patcher = self.base.current_patcher
        hooks = [] if patcher.current_hooks is None else patcher.current_hooks.hooks
        injected = [one for group in patcher.injections.values() for one in group]
        replaced = patcher.object_patches.values()
        things = (self.base, self.options.get("optimized_attention_override"), *injected, *replaced)
        return patcher.patches_uuid, Same(*things, *hooks), tuple(hook.strength for hook in hooks)


class HostAttachment(Attachment):
    """An attachment with the host's three hooks."""

    def apply(self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **conds):
        """APPLY_MODEL wrapper: from the call's sources to the K/V that its blocks will append."""
        options = dict(transformer_options or {})
        base = executor.class_obj
        sources = [source for source in conds.pop(COND, ()) if _is_on(source, base, options)]
        if sources:
            channels = x.shape[1] + (0 if c_concat is None else c_concat.shape[1])
            pooled, guidance = conds.get("y"), conds.get("guidance")
            options[OPTION] = self.appendix(base, sources, x, t, pooled, options, channels, guidance)
        return executor(x, t, c_concat, c_crossattn, control, options, **conds)

    @torch.compiler.disable()
    def appendix(self, base, sources, x, t, pooled, options, channels: int = 0, guidance=None) -> Appendix:
        check_flux(base.diffusion_model)
        host = ComfyHost(base, options)
        chunks = len(options.get("cond_or_uncond", [0]))
        time = base.model_sampling.timestep(t).float()
        with long_lived(), torch.no_grad():
            return self.prepare(host, sources, x, time, pooled, chunks, channels, guidance)

    def announce(self, executor, model, noise_shape, conds, *args, **kwargs):
        """PREPARE_SAMPLING wrapper: asks the host for room for K/V by a larger picture."""
        self.cache.rows.clear()
        needed = self.kv_bytes(model.model, noise_shape, conds)
        return executor(model, with_room(model.model, noise_shape, needed), conds, *args, **kwargs)

    def kv_bytes(self, base, noise_shape: Sequence[int], conds: dict[str, list]) -> int:
        """K and V of every block, for each cond's sources that wait on the GPU (one block for those on the CPU)."""
        flux = base.diffusion_model
        blocks = sum(1 for _ in named_blocks(flux))
        width = comfy.model_management.dtype_size(base.get_dtype_inference())
        bytes_a_value = {"gpu": width * blocks, "fp8": blocks + 2 * width, "cpu": 2 * width}
        total = 0
        for entries in conds.values():
            for source in (s for options in entries for s in sources_of(options)):
                rows, columns = token_grid(source.latent, flux.patch_size)
                samples = min(len(source.latent), noise_shape[0])
                total += 2 * samples * rows * columns * flux.hidden_size * bytes_a_value[source.placement]
        return total

    @torch.compiler.disable()
    def __call__(self, *args, **kwargs) -> dict:
        # Kept out of compiled blocks: the host drops guards on transformer_options, so a traced hook
        # would go on with the sources of the run that traced it.
        with long_lived():
            return super().__call__(*args, **kwargs)


def apply_bank(model, bank: Bank):
    """A clone of MODEL on which sources can be used."""
    check_host()
    flux = model.get_model_object("diffusion_model")
    check_flux(flux)
    if attachment_of(model) is not None:
        raise ValueError(
            "This MODEL already has a CoLoGen bank, expected one without: apply both banks to the loader's MODEL "
            "separately, or merge them first (cologen bank merge)."
        )
    attachment = HostAttachment(bank)
    attachment.check(ComfyHost(model.model, {}))
    wrappers = comfy.patcher_extension.WrappersMP
    patched = model.clone()
    patched.set_model_attn1_patch(attachment)
    patched.add_wrapper_with_key(wrappers.APPLY_MODEL, OPTION, attachment.apply)
    patched.add_wrapper_with_key(wrappers.PREPARE_SAMPLING, OPTION, attachment.announce)
    return patched


def attachment_of(model) -> HostAttachment | None:
    patches = model.model_options.get("transformer_options", {}).get("patches", {}).get("attn1_patch", [])
    return next((patch for patch in patches if isinstance(patch, HostAttachment)), None)


def routes_of(model, conditioning: list, latent: Tensor) -> list[tuple[str, tuple[str, ...], dict[str, Route]]]:
    """For every source: a title, expert names in column order, and the route in each block.

    Runs the sources alone: without noise their routes are the sampler's.
    """
    attachment = attachment_of(model)
    if attachment is None:
        raise ValueError("This MODEL has no CoLoGen bank, expected one: put CoLoGen Apply before this node.")
    comfy.model_management.load_models_gpu([model])
    transformer_options, found = model.model_options.get("transformer_options", {}), []
    channels = model.model.diffusion_model.in_channels // model.model.diffusion_model.patch_size**2
    model.pre_run()
    try:
        for _, options in conditioning:
            x = torch.zeros(1, LATENT_CHANNELS, *latent.shape[-2:], device=model.load_device)
            pooled = options.get("pooled_output")
            pooled = None if pooled is None else pooled[:1].to(x.device)
            for source in sources_of(options):
                call = (model.model, [source], x, x.new_zeros(1), pooled, transformer_options, channels)
                appendix = attachment.appendix(*call)
                _, columns = columns_of(attachment.bank, source.routing)
                found.append((f"{source.routing.task}, source {len(found) + 1}", columns.experts, appendix.routes()))
    finally:
        model.cleanup()
    return found


def check_host() -> None:
    """Feature, not version: the hook is there if the block's code mentions it."""
    forward = inspect.unwrap(comfy.ldm.flux.layers.DoubleStreamBlock.forward)
    if forward.__module__ != comfy.ldm.flux.layers.__name__:
        raise RuntimeError(
            f"FLUX's blocks have been replaced by {forward.__module__}, expected ComfyUI's own: disable that pack."
        )
    if "attn1_patch" not in forward.__code__.co_consts:
        raise RuntimeError(
            f"This is ComfyUI {comfyui_version.__version__}, whose FLUX has no hook for CoLoGen, "
            f"expected 0.17.0 or newer: update ComfyUI."
        )


def check_flux(flux: torch.nn.Module) -> None:
    """Refuses models that would ignore our hooks without a word."""
    flux = getattr(flux, "_orig_mod", flux)
    host_flux = comfy.ldm.flux.model.Flux
    if not isinstance(flux, host_flux):
        raise ValueError(
            f"The model is a {type(flux).__name__}, expected ComfyUI's own FLUX.1: load it with Load Diffusion "
            f"Model (Nunchaku and other replacements of FLUX have no hook for CoLoGen)."
        )
    if flux.params.global_modulation or flux.params.vec_in_dim is None:
        raise ValueError("The model is of the FLUX family, expected FLUX.1: load FLUX.1-dev, schnell or a fine-tune.")
    forward = getattr(flux.forward_orig, "__func__", flux.forward_orig)
    if getattr(forward, "__module__", None) != host_flux.__module__:
        raise ValueError(
            f"FLUX's forward has been replaced by {getattr(forward, '__module__', 'another pack')}, expected "
            f"ComfyUI's own: bypass that node (TeaCache, WaveSpeed, PuLID ...); EasyCache works with CoLoGen."
        )


def with_room(base, noise_shape: Sequence[int], needed: int) -> Sequence[int]:
    """The shape of a larger picture, whose memory by the host's estimate holds that many bytes more."""
    if not needed:
        return noise_shape
    per_column = base.memory_required([*noise_shape[:-1], 1])
    return [*noise_shape[:-1], noise_shape[-1] + int(needed / max(per_column, 1)) + 1]


def within(start: float, end: float, sigma: float, base) -> bool:
    """Whether the sampler is in that part of the sampling; some samplers go past both ends of the schedule."""
    to_sigma = base.model_sampling.percent_to_sigma
    begun = start <= 0 or sigma <= to_sigma(start) * ROUNDED
    return begun and (end >= 1 or sigma > to_sigma(end) * ROUNDED)


def _is_on(source: Source, base, options: dict[str, Any]) -> bool:
    if source.strength == 0 or (source.start <= 0 and source.end >= 1):
        return source.strength > 0
    return within(source.start, source.end, float(options["sigmas"].max()), base)


def long_lived():
    """Where the host records a block's allocations, what outlives the block is made outside the record."""
    pause = getattr(getattr(comfy, "model_prefetch", None), "pause_malloc_graph", None)
    return pause() if pause else nullcontext()
