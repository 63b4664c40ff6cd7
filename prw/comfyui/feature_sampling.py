"""Features drawn along with the pictures of any sampler of the host, by the model patcher alone.

    v = v_off + weight (v_on - v_off)        without and with the features' tokens (ReDi); 1 needs no call without them

An APPLY_MODEL wrapper, within the one that weaves sources, adds the tokens to each call that draws a picture of their
task; a SAMPLER_SAMPLE wrapper begins every run anew. Negative prompts do without them. Of several calls for one prompt at
one time, as guiders of other packs make them, the first is heard.
"""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..appended_kv import OPTION, Appendix, Part
from ..bank.bank import Bank
from ..base_model import Base
from ..coredi.feature_stream import FeatureStream, last_tokens
from ..coredi.features import WAYS, Features, begun, pooling
from ..files.validate import short
from ..positions import token_grid
from ..router import Route
from ..source import read_bias
from .host import ComfyHost, pause_malloc_graph
from .patch import HostAttachment, find_attachment

KEY = "cologen_features"
NEGATIVE = "negative"
APART = 2
"""Added to a run's seed: the picture's noise is of that seed itself."""


class Run(NamedTuple):
    """One run's features by the host's name for a prompt; no dict, because the host copies those in its options."""

    seed: int
    negative: frozenset[Hashable]
    also_positive: frozenset[Hashable]
    """Names that an area's prompt shares with the negative that the host makes for it."""
    states: dict[Hashable, Any]
    heard: dict[Hashable, float]
    """When each was heard last."""

    @classmethod
    def of(cls, seed: int, conds: Mapping[str, list]) -> "Run":
        names = {kind: frozenset(entry.get("uuid") for entry in entries) for kind, entries in conds.items()}
        negative = names.pop(NEGATIVE, frozenset())
        return cls(seed, negative, negative & frozenset().union(*names.values()), {}, {})

    def reads(self, name: Hashable, index: int) -> bool:
        """A prompt by its name and its place in the guider's list."""
        return name not in self.negative or (name in self.also_positive and index == 0)


class HostStream(FeatureStream):
    @torch.compiler.disable()
    def __call__(self, *args, **kwargs) -> dict:
        with pause_malloc_graph():
            return super().__call__(*args, **kwargs)


class FeatureReading:
    """Pictures of a MODEL that read a file's features; the MODEL has the bank that learned them."""

    def __init__(self, features: Features, weight: float):
        self.features, self.weight = features, weight
        self.key = f"{KEY}/{features.info.task}"
        self.bank: Bank | None = None

    def attach(self, model):
        """A clone of MODEL that does."""
        info, attachment = self.features.info, find_attachment(model)
        task, name = short(info.task), short(info.base.name)
        if attachment is None:
            raise ValueError(
                "This MODEL has no experts, expected those that learned the features: put CoLoGen Apply before this node."
            )
        if info.task not in {router.task for router in attachment.bank.info.routers.values()}:
            raise ValueError(
                f"The bank on this MODEL has no router for {task}, expected the one that learned the features: apply the "
                f"bank of the same training."
            )
        if info.base.refusal(Base.of(model.get_model_object("diffusion_model"))):
            raise ValueError(
                f"The MODEL is of another shape than the FLUX that learned the features, expected "
                f"{name or 'the same'}: load that one, or choose another file."
            )
        if model.get_attachment(self.key) is not None:
            raise ValueError(
                f"This MODEL already reads features of {task}, expected none: use one CoLoGen Features a task."
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
        run = Run.of(extra_args.get("seed") or 0, guider.conds)
        extra_args["model_options"]["transformer_options"][self.key] = run
        samples = executor(guider, sigmas, extra_args, *args, **kwargs)
        if run.states and not run.heard:
            said = "Features of %s were never heard, so that no picture read any: leave out what compiles or replaces FLUX."
            logging.getLogger(__name__).warning(said, self.features.info.task)
        return samples

    def apply(self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **conds):
        """APPLY_MODEL wrapper."""
        options = dict(transformer_options or {})
        appendix, run = options.get(OPTION), options.get(self.key)
        part = self._part(appendix)

        def call(options: dict[str, Any]) -> Tensor:
            return executor(x, t, c_concat, c_crossattn, control, options, **conds)

        if part is None or run is None or "uuids" not in options:
            return call(options)
        own = [i for i, one in enumerate(zip(options["uuids"], options["cond_or_uncond"])) if run.reads(*one)]
        if not own:
            return call(options)
        self._refuse_skipping(options)
        one = Call(executor.class_obj, self.features.to(x.device), x, t, options, conds)
        states = {i: one.state(run, i) for i in own}
        with pause_malloc_graph():
            stream = one.stream(self.bank, appendix, part, {i: state.at(one.now) for i, state in states.items()})
        with last_tokens(one.host.flux) as heard:
            found = call(options if stream is None else with_stream(options, stream))
        one.hear(run, states, stream, heard)
        if stream is None or self.weight == 1:
            return found
        plain = call(options)
        return plain + self.weight * (found - plain)

    def _refuse_skipping(self, options: dict[str, Any]) -> None:
        if self.weight != 1 and "easycache" in options:
            raise ValueError(
                f"EasyCache would take the second call of a step for a step without change at weight {self.weight:g}, "
                f"expected 1 beside it: set the weight to 1, or bypass EasyCache."
            )

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
            generator = torch.Generator().manual_seed((run.seed + APART) % 2**64)
            noise = torch.randn(shape, generator=generator).to(self.x.device)
            run.states[name] = WAYS[self.features.info.way](self.features.tensors, noise)
        return run.states[name]

    def hear(self, run: Run, states: Mapping[int, Any], stream: HostStream | None, heard: Sequence[Tensor]) -> None:
        if not heard:  # EasyCache passed over FLUX
            return
        for i, state in states.items():
            name, rows = self.options["uuids"][i], self.rows[i]
            if run.heard.get(name) != self.now:
                run.heard[name] = self.now
                state.hear(stream and stream.left[rows], heard[0][rows, : self.pool.shape[1]], self.pool)

    def stream(self, bank: Bank, appendix: Appendix, part: Part, z: Mapping[int, Tensor | None]) -> HostStream | None:
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

        def bias(text: int, queries: int) -> Tensor | None:
            return read_bias(part.source, text, appendix.grid, queries)

        return HostStream(self.host, bank, part.source.routing, routes, *given, None if read.all() else read, bias)


def joined(routes: list[Route]) -> Route:
    """Those of single samples as a batch's."""
    return Route(*map(torch.stack, zip(*routes, strict=True)))


def with_stream(options: dict[str, Any], stream: HostStream) -> dict[str, Any]:
    """Its tokens come right behind the sources: who looks on has to be the last."""
    patches = options["patches"]
    every = list(patches["attn1_patch"])
    at = 1 + max(i for i, patch in enumerate(every) if isinstance(patch, (HostAttachment, HostStream)))
    return {**options, "patches": {**patches, "attn1_patch": [*every[:at], stream, *every[at:]]}}
