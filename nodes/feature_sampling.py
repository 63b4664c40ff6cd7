"""Features drawn along with the pictures of any sampler of the host, by the model patcher alone.

    v = v_off + weight (v_on - v_off)        without and with the features' tokens (ReDi); 1 needs no call without them

An APPLY_MODEL wrapper, within the one that weaves sources, adds the tokens to each call that draws a picture of their
task; a SAMPLER_SAMPLE wrapper begins every run anew. Negative prompts do without them.
"""

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..prw.appendix import OPTION, Appendix, Part
from ..prw.bank import Bank
from ..prw.config import Base
from ..prw.feature_stream import FeatureStream, last_tokens
from ..prw.features import WAYS, Features, begun, pooling
from ..prw.flux_patch import ComfyHost, attachment_of, long_lived
from ..prw.positions import token_grid
from ..prw.router import Route

KEY = "cologen_features"


class Run(NamedTuple):
    """One run's features by the host's name for a prompt; no dict, because the host copies those in its options."""

    seed: int
    states: dict[Hashable, Any]


class HostStream(FeatureStream):
    @torch.compiler.disable()
    def __call__(self, *args, **kwargs) -> dict:
        with long_lived():
            return super().__call__(*args, **kwargs)


class FeatureReading:
    """Pictures of a MODEL that read a file's features; the MODEL has the bank that learned them."""

    def __init__(self, features: Features, weight: float):
        self.features, self.weight = features, weight
        self.key = f"{KEY}/{features.info.task}"
        self.bank: Bank | None = None

    def attach(self, model):
        """A clone of MODEL that does."""
        info, attachment = self.features.info, attachment_of(model)
        if attachment is None:
            raise ValueError(
                "This MODEL has no experts, expected those that learned the features: put CoLoGen Apply before this node."
            )
        if info.base.refusal(Base.of(model.get_model_object("diffusion_model"))):
            raise ValueError(
                f"The MODEL is of another shape than the FLUX that learned the features, expected "
                f"{info.base.name or 'the same'}: load that one, or choose another file."
            )
        if model.get_attachment(self.key) is not None:
            raise ValueError(
                f"This MODEL already reads features of {info.task}, expected none: use one CoLoGen Features a task."
            )
        self.bank = attachment.bank
        patched = model.clone()
        if self.weight == 0:
            return patched
        patched.set_attachments(self.key, self)
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, self.key, self.sample)
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, self.key, self.apply)
        return patched

    def sample(self, executor, guider, sigmas, extra_args, *args, **kwargs):
        """SAMPLER_SAMPLE wrapper."""
        extra_args["model_options"]["transformer_options"][self.key] = Run(extra_args.get("seed") or 0, {})
        return executor(guider, sigmas, extra_args, *args, **kwargs)

    def apply(self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **conds):
        """APPLY_MODEL wrapper."""
        options = dict(transformer_options or {})
        part, run = self._part(options.get(OPTION)), options.get(self.key)
        own = [i for i, cond in enumerate(options.get("cond_or_uncond", ())) if cond == 0]

        def call(options: dict[str, Any]) -> Tensor:
            return executor(x, t, c_concat, c_crossattn, control, options, **conds)

        if part is None or run is None or not own:
            return call(options)
        one = Call(executor.class_obj, self.features.to(x.device), x, t, options, conds)
        states = {i: one.state(run, i) for i in own}
        with long_lived():
            stream = one.stream(self.bank, part, {i: state.at(one.now) for i, state in states.items()})
        with last_tokens(one.host.flux) as heard:
            found = call(options if stream is None else behind(options, stream))
        for i, state in states.items():
            state.hear(stream and stream.h[one.rows[i]], heard[0][one.rows[i], : one.pool.shape[1]], one.pool)
        if stream is None or self.weight == 1:
            return found
        plain = call(options)
        return plain + self.weight * (found - plain)

    def _part(self, appendix: Appendix | None) -> Part | None:
        """The source that a picture of the features' task is drawn from."""
        parts = [] if appendix is None else appendix.parts
        return next((part for part in parts if part.source.routing.task == self.features.info.task), None)


class Call:
    """One model call of the host; prompts share its batch, and some of them read features."""

    def __init__(self, base, features: Features, x: Tensor, t: Tensor, options: dict[str, Any], conds: Mapping):
        self.host, self.features, self.x, self.options = ComfyHost(base, options), features, x, options
        self.times, self.conds = base.model_sampling.timestep(t).float().expand(len(x)), conds
        self.now = float(self.times.max())
        self.pool = pooling(*token_grid(x, base.diffusion_model.patch_size)).to(x.device)
        pictures = len(x) // len(options["cond_or_uncond"])
        self.rows = [slice(i, i + pictures) for i in range(0, len(x), pictures)]
        """Of each prompt."""

    def state(self, run: Run, prompt: int):
        name, rows = self.options["uuids"][prompt], self.rows[prompt]
        if name not in run.states:
            shape = (rows.stop - rows.start, len(self.pool), self.features.info.size)
            noise = torch.randn(shape, generator=torch.Generator().manual_seed(run.seed)).to(self.x.device)
            run.states[name] = WAYS[self.features.info.way](self.features.tensors, noise)
        return run.states[name]

    def stream(self, bank: Bank, part: Part, z: Mapping[int, Tensor | None]) -> HostStream | None:
        """What the pictures read, None where they read nothing yet."""
        told = {i: tokens for i, tokens in z.items() if tokens is not None}
        if not told:
            return None
        blank = torch.zeros_like(next(iter(told.values())))
        every = torch.cat([told.get(i, blank) for i in range(len(self.rows))])
        read = torch.zeros(len(self.x), dtype=torch.bool, device=self.x.device)
        for i in told:
            read[self.rows[i]] = True
        routes = {block: joined([row.routes[block] for row in part.rows]) for block in part.rows[0].routes}
        pooled, guidance = self.conds.get("y"), self.conds.get("guidance")
        if pooled is None:
            pooled = self.x.new_zeros(len(self.x), self.host.flux.params.vec_in_dim)
        guidance = None if guidance is None else guidance.to(self.times).expand(len(self.x))
        given = begun(self.features.tensors, every), self.x, self.times, pooled, guidance
        return HostStream(self.host, bank, part.source.routing, routes, *given, None if read.all() else read)


def joined(routes: list[Route]) -> Route:
    """Those of single samples as a batch's."""
    return Route(*map(torch.stack, zip(*routes, strict=True)))


def behind(options: dict[str, Any], patch) -> dict[str, Any]:
    """Options with one more patch of attention behind all others."""
    patches = options.get("patches", {})
    return {**options, "patches": {**patches, "attn1_patch": [*patches.get("attn1_patch", ()), patch]}}
