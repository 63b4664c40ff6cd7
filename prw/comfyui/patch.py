"""Where sources enter ComfyUI's FLUX: four hooks on a clone of MODEL, and nothing else of the host is touched.

    attn1_patch        HostAttachment.__call__          in every block: appends the sources' K and V to the block's own
    APPLY_MODEL        HostAttachment.prepare_sources   before a model call: CONDITIONING's sources -> K/V (or its cache)
    OUTER_SAMPLE       HostAttachment.fit_guider        before a run: pictures become sources as the bank's experts know them
    PREPARE_SAMPLING   HostAttachment.reserve_memory    before a run: announces the memory of K/V to the host

Sources travel in CONDITIONING (conditioning.py) as a condition of their own; the K/V of one call travel in its
transformer_options. So samplers, LoRA, fp8, offloading and other patches behave as always. What the hooks call stands in
attachment.py (K/V once a picture) and appended_kv.py (the appending, paper eq. 5 to 7).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP

from ..appended_kv import OPTION, AppendedKV
from ..attachment import Attachment
from ..bank.bank import Bank
from ..base_model import Base
from ..base_weights import BaseWeights
from ..find_experts import find_model
from ..flux.inputs import FluxInputs
from ..model_pass import measure_largest_block
from ..source import Reading, Source
from ..weaving import named_blocks
from .check_host import check_flux, check_host, check_prompt_width, describe_foreign_positions, name_outdated_layers
from .conditioning import AUXILIARY, COND, list_sources, map_sources
from .host import ComfyHost, enlarge_noise_shape, is_within, pause_malloc_graph


class HostAttachment(Attachment):
    """A bank on a MODEL of the host: an attachment whose methods are the four hooks."""

    strength = 1.0
    """Of all its experts, a factor of each source's own."""

    @torch.compiler.disable()
    def __call__(self, *args, **kwargs) -> dict:
        """`attn1_patch`: appends the sources' K, V and positions to a block's (appended_kv.py)."""
        # Kept out of compiled blocks: the host drops guards on transformer_options, so a traced hook
        # would go on with the sources of the run that traced it.
        with pause_malloc_graph():
            return super().__call__(*args, **kwargs)

    def fit_guider(self, executor, *args, **kwargs):
        """OUTER_SAMPLE wrapper: fits the sources of the guider's prompts, while the VAE may still be loaded."""
        guider = executor.class_obj
        guider.conds = {
            name: entries if name == AUXILIARY else [map_sources(options, self.fit_source) for options in entries]
            for name, entries in guider.conds.items()
        }
        return executor(*args, **kwargs)

    def fit_source(self, source: Reading) -> Reading:
        """Gives the source as this bank's experts know it, with their strength."""
        info = self.bank.info
        if not isinstance(source, Source) or not (info.experts or info.models):
            return source
        if source.fit is not None:
            latent, routing = source.fit(info)
            source = replace(source, latent=latent, routing=routing, fit=None)
        if self.strength == 1:
            return source
        if find_model(info, source.routing):  # what reads a whole model's keys is the base
            return replace(source, strength=source.strength * self.strength)
        return replace(source, routing=replace(source.routing, strength=source.routing.strength * self.strength))

    def prepare_sources(
        self, executor, x, t, c_concat=None, c_crossattn: Any = None, control=None, transformer_options=None, **conds
    ):
        """APPLY_MODEL wrapper: turns the call's sources into the K/V that its blocks will append."""
        options = dict(transformer_options or {})
        base = executor.class_obj
        check_prompt_width(base.diffusion_model, c_crossattn)
        sources = [source for source in conds.pop(COND, ()) if _is_on(source, base, options)]
        with name_outdated_layers():
            if sources:
                channels = x.shape[1] + (0 if c_concat is None else c_concat.shape[1])
                inputs = FluxInputs(x, t, c_crossattn, conds.get("y"), conds.get("guidance"))
                options[OPTION] = self.make_appended_kv(base, sources, inputs, options, channels)
            return executor(x, t, c_concat, c_crossattn, control, options, **conds)

    @torch.compiler.disable()
    def make_appended_kv(
        self, base, sources: Sequence[Reading], inputs: FluxInputs, options: dict[str, Any], channels: int = 0
    ) -> AppendedKV:
        """Makes the K/V of all sources for one model call of the host; the times of `inputs` are the host's."""
        check_flux(base.diffusion_model)
        self.warn_once(describe_foreign_positions(base.diffusion_model))
        host = ComfyHost(base, options)
        chunks = len(options.get("cond_or_uncond", [0]))
        inputs = inputs._replace(times=base.model_sampling.timestep(inputs.times).float())
        with pause_malloc_graph(), torch.no_grad():
            return self.prepare(host, sources, inputs, chunks, channels)

    def reserve_memory(self, executor, model, noise_shape, conds, *args, **kwargs):
        """PREPARE_SAMPLING wrapper: asks the host for room for K/V by a larger picture."""
        self.cache.entries.clear()
        needed = self.estimate_kv_bytes(model.model, noise_shape, conds)
        return executor(model, enlarge_noise_shape(model.model, noise_shape, needed), conds, *args, **kwargs)

    def estimate_kv_bytes(self, base, noise_shape: Sequence[int], conds: dict[str, list]) -> int:
        """Estimates the bytes of K and V of every block, for each cond's sources that wait on the GPU (one block for
        those on the CPU).

        A whole model asks for its prompt's K and V as well, and for the weights of one of its blocks.
        """
        flux = base.diffusion_model
        blocks = sum(1 for _ in named_blocks(flux))
        width = comfy.model_management.dtype_size(base.get_dtype_inference())
        bytes_per_value = {"gpu": width * blocks, "fp8": blocks + 2 * width, "cpu": 2 * width}
        total, models = 0, set()
        for options in (options for entries in conds.values() for options in entries):
            for source in list_sources(options):
                keys = source.count_keys(flux.patch_size, noise_shape[0])
                if isinstance(source, Source) and (model := find_model(self.bank.info, source.routing)):
                    keys += count_prompt_rows(source, options) * min(len(source.latent), noise_shape[0])
                    models.add(model)
                total += 2 * keys * flux.hidden_size * bytes_per_value[source.placement]
        return total + max((measure_largest_block(self.bank.model(model, flux)) for model in models), default=0)


def count_prompt_rows(source: Source, options: dict[str, Any]) -> int:
    """Counts rows of the prompt that a whole model reads beside a source of this cond."""
    prompt = options.get("cross_attn") if source.prompt is None else source.prompt
    return 0 if prompt is None else prompt.shape[1]


def apply_bank(model, bank: Bank | None, strength: float = 1.0):
    """Gives a clone of MODEL on which sources can be used; without a bank the model reads them with its own weights.

    `strength` is a factor of what every source asks of the bank's experts.
    """
    check_host()
    flux = model.get_model_object("diffusion_model")
    check_flux(flux)
    if find_attachment(model) is not None:
        raise ValueError(
            "This MODEL already has a CoLoGen bank, expected one without: join both banks by Merge CoLoGen Experts, "
            "and put that one on the MODEL."
        )
    attachment = HostAttachment(BaseWeights(Base.of(flux)) if bank is None else bank)
    attachment.strength = strength
    attachment.check(ComfyHost(model.model, {}))
    patched = model.clone()
    patched.set_model_attn1_patch(attachment)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, OPTION, attachment.prepare_sources)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, OPTION, attachment.fit_guider)
    patched.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, OPTION, attachment.reserve_memory)
    return patched


def find_attachment(model) -> HostAttachment | None:
    """Finds the bank on a MODEL; None if it has none."""
    patches = model.model_options.get("transformer_options", {}).get("patches", {}).get("attn1_patch", [])
    return next((patch for patch in patches if isinstance(patch, HostAttachment)), None)


def require_attachment(model) -> HostAttachment:
    """Returns the bank on a MODEL; raises if it has none."""
    attachment = find_attachment(model)
    if attachment is None:
        raise ValueError("This MODEL has no CoLoGen bank, expected one: put CoLoGen Apply before this node.")
    return attachment


def _is_on(source: Reading, base, options: dict[str, Any]) -> bool:
    if source.strength == 0 or (source.start <= 0 and source.end >= 1):
        return source.strength > 0
    return is_within(source.start, source.end, float(options["sigmas"].max()), base)
