"""Features drawn along with the pictures of any sampler of the host, by wrappers of the model patcher alone.

    v = v_off + weight (v_on - v_off)        without and with the features' tokens (ReDi); 1 needs no call without them

An APPLY_MODEL wrapper, within the one that prepares sources, adds the tokens to each call that draws a picture of their
task; a SAMPLER_SAMPLE wrapper begins every run anew. Negative prompts do without them. Of several calls for one prompt at
one time, as guiders of other packs make them, the first updates the features.
"""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..appended_kv import OPTION, AppendedKV, CachedSourceKV
from ..base_model import Base
from ..coredi.feature_stream import FeatureStream, SourceExperts, record_last_tokens
from ..coredi.features import FEATURE_STATES, Features, FeatureState, embed_features, make_pooling_matrix
from ..files.validate import shorten
from ..flux.inputs import FluxInputs
from ..positions import token_grid
from ..router import Route
from ..select_experts import ExpertBank
from ..source import read_bias
from .host import ComfyHost, pause_malloc_graph
from .patch import HostAttachment, find_attachment

KEY = "cologen_features"
NEGATIVE = "negative"
NOISE_SEED_OFFSET = 2
"""Added to a run's seed: the picture's noise is of that seed itself."""


class FeatureRun(NamedTuple):
    """One run's features by the host's name for a prompt; no dict, because the host copies those in its options."""

    seed: int
    negative: frozenset[Hashable]
    also_positive: frozenset[Hashable]
    """Names that an area's prompt shares with the negative that the host makes for it."""
    states: dict[Hashable, FeatureState]
    updated_at: dict[Hashable, float]
    """By prompt: the time of its features' last update."""

    @classmethod
    def of(cls, seed: int, conds: Mapping[str, list]) -> "FeatureRun":
        names = {kind: frozenset(entry.get("uuid") for entry in entries) for kind, entries in conds.items()}
        negative = names.pop(NEGATIVE, frozenset())
        return cls(seed, negative, negative & frozenset().union(*names.values()), {}, {})

    def is_reader(self, name: Hashable, index: int) -> bool:
        """Says whether a prompt, by its name and its place in the guider's list, reads features."""
        return name not in self.negative or (name in self.also_positive and index == 0)


class HostFeatureStream(FeatureStream):
    """A feature stream in the host's blocks, kept out of compiled ones."""

    @torch.compiler.disable()
    def __call__(self, *args, **kwargs) -> dict:
        with pause_malloc_graph():
            return super().__call__(*args, **kwargs)


class FeatureReader:
    """Lets the pictures of a MODEL read a file's features; the MODEL has the bank that learned them."""

    def __init__(self, features: Features, weight: float):
        self.features, self.weight = features, weight
        self.key = f"{KEY}/{features.info.task}"
        self.bank: ExpertBank | None = None

    def attach(self, model):
        """Gives a clone of MODEL whose pictures read the features."""
        info, bank = self.features.info, self._check_model(model)
        if info.base.describe_incompatibility(Base.of(model.get_model_object("diffusion_model"))):
            raise ValueError(
                f"The MODEL is of another shape than the FLUX that learned the features, expected "
                f"{shorten(info.base.name) or 'the same'}: load that one, or choose another file."
            )
        if model.get_attachment(self.key) is not None:
            raise ValueError(
                f"This MODEL already reads features of {shorten(info.task)}, expected none: use one CoLoGen Features a task."
            )
        self.bank = bank
        patched = model.clone()
        if self.weight == 0:
            return patched
        patched.set_attachments(self.key, self)
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, self.key, self.wrap_sampler_sample)
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, self.key, self.wrap_apply_model)
        return patched

    def _check_model(self, model) -> ExpertBank:
        attachment, task = find_attachment(model), self.features.info.task
        if attachment is None:
            raise ValueError(
                "This MODEL has no experts, expected those that learned the features: put CoLoGen Apply before this node."
            )
        if task not in {router.task for router in attachment.bank.info.routers.values()}:
            raise ValueError(
                f"The bank on this MODEL has no router for {shorten(task)}, expected the one that learned the features: "
                f"apply the bank of the same training."
            )
        return attachment.bank

    def wrap_sampler_sample(self, executor, guider, sigmas, extra_args, *args, **kwargs):
        """SAMPLER_SAMPLE wrapper: begins a run's features, and warns if nothing of them was ever seen."""
        run = FeatureRun.of(extra_args.get("seed") or 0, guider.conds)
        extra_args["model_options"]["transformer_options"][self.key] = run
        samples = executor(guider, sigmas, extra_args, *args, **kwargs)
        if run.states and not run.updated_at:
            text = "No model call used the features of %s, so that no picture read any: leave out what compiles or replaces FLUX."
            logging.getLogger(__name__).warning(text, shorten(self.features.info.task))
        return samples

    def wrap_apply_model(
        self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **conds
    ):
        """APPLY_MODEL wrapper: adds the features' tokens to the call, and updates them by what it computes."""
        options = dict(transformer_options or {})
        appended, run = options.get(OPTION), options.get(self.key)

        def call_model(options: dict[str, Any]) -> Tensor:
            return executor(x, t, c_concat, c_crossattn, control, options, **conds)

        source_kv = None if appended is None else self._find_source(appended)
        if appended is None or source_kv is None or self.bank is None or run is None or "uuids" not in options:
            return call_model(options)
        prompts = enumerate(zip(options["uuids"], options["cond_or_uncond"]))
        readers = [i for i, prompt in prompts if run.is_reader(*prompt)]
        if not readers:
            return call_model(options)
        self._check_easycache(options)
        call = FeatureCall(executor.class_obj, self.features.to(x.device), x, t, options, conds)
        states = {i: call.find_state(run, i) for i in readers}
        with pause_malloc_graph():
            tokens = {i: state.advance(call.now) for i, state in states.items()}
            stream = call.make_stream(self.bank, appended, source_kv, tokens)
        with record_last_tokens(call.host.flux) as last_tokens:
            velocity = call_model(options if stream is None else insert_stream(options, stream))
        call.update(run, states, stream, last_tokens)
        if stream is None or self.weight == 1:
            return velocity
        plain = call_model(options)
        return plain + self.weight * (velocity - plain)

    def _check_easycache(self, options: dict[str, Any]) -> None:
        if self.weight != 1 and "easycache" in options:
            raise ValueError(
                f"EasyCache would take the second call of a step for a step without change at weight {self.weight:g}, "
                f"expected 1 beside it: set the weight to 1, or bypass EasyCache."
            )

    def _find_source(self, appended: AppendedKV) -> CachedSourceKV | None:
        """Finds the source that a picture of the features' task is drawn from."""
        sources = [source for source in appended.sources if isinstance(source, CachedSourceKV)]
        return next((source for source in sources if source.routing.task == self.features.info.task), None)


class FeatureCall:
    """One model call of the host; prompts share its batch, and some of them read features."""

    def __init__(self, base, features: Features, x: Tensor, t: Tensor, options: dict[str, Any], conds: Mapping):
        self.host, self.features, self.x, self.options = ComfyHost(base, options), features, x, options
        self.times, self.conds = base.model_sampling.timestep(t).float().expand(len(x)), conds
        self.now = float(self.times.max())
        self.pool = make_pooling_matrix(*token_grid(x, base.diffusion_model.patch_size)).to(x.device)
        pictures = len(x) // len(options["cond_or_uncond"])
        self.rows = [slice(i, i + pictures) for i in range(0, len(x), pictures)]
        """Each prompt's rows of the batch."""

    def find_state(self, run: FeatureRun, prompt: int) -> FeatureState:
        """Finds a prompt's features, which begin with noise in its first call."""
        name, rows = self.options["uuids"][prompt], self.rows[prompt]
        if name not in run.states:
            shape = (rows.stop - rows.start, len(self.pool), self.features.info.size)
            generator = torch.Generator().manual_seed((run.seed + NOISE_SEED_OFFSET) % 2**64)
            noise = torch.randn(shape, generator=generator).to(self.x.device)
            run.states[name] = FEATURE_STATES[self.features.info.way](self.features.tensors, noise)
        return run.states[name]

    def update(
        self,
        run: FeatureRun,
        states: Mapping[int, FeatureState],
        stream: HostFeatureStream | None,
        last_tokens: Sequence[Tensor],
    ) -> None:
        """Updates each prompt's features by the last tokens of this call, unless this time has updated them already."""
        if not last_tokens:  # EasyCache passed over FLUX
            return
        stream_tokens = None if stream is None else stream.last_tokens
        for i, state in states.items():
            name, rows = self.options["uuids"][i], self.rows[i]
            if run.updated_at.get(name) != self.now:
                run.updated_at[name] = self.now
                picture_tokens = last_tokens[0][rows, : self.pool.shape[1]]
                state.update(None if stream_tokens is None else stream_tokens[rows], picture_tokens, self.pool)

    def make_stream(
        self, bank: ExpertBank, appended: AppendedKV, source_kv: CachedSourceKV, z: Mapping[int, Tensor | None]
    ) -> HostFeatureStream | None:
        """Makes the stream of each prompt's features z; None where no picture reads anything yet."""
        available = {i: features for i, features in z.items() if features is not None}
        if not available:
            return None
        blank = torch.zeros_like(next(iter(available.values())))
        features = torch.cat([available.get(i, blank) for i in range(len(self.rows))])
        readers = torch.zeros(len(self.x), dtype=torch.bool, device=self.x.device)
        for i in available:
            readers[self.rows[i]] = True
        routes = {
            block: stack_routes([sample.routes[block] for sample in source_kv.samples])
            for block in source_kv.samples[0].routes
        }
        guidance = self.conds.get("guidance")
        guidance = None if guidance is None else guidance.to(self.times).expand(len(self.x))
        inputs = FluxInputs(self.x, self.times, self.x.new_zeros(len(self.x), 0, 0), self.conds.get("y"), guidance)

        def bias(text: int, queries: int) -> Tensor | None:
            return read_bias(source_kv.source, text, appended.grid, queries)

        source = SourceExperts(bank, source_kv.routing, routes)
        tokens = embed_features(self.features.tensors, features)
        return HostFeatureStream(self.host, source, tokens, inputs, None if readers.all() else readers, bias)


def stack_routes(routes: list[Route]) -> Route:
    """Stacks the routes of single samples to a batch's."""
    return Route(*map(torch.stack, zip(*routes, strict=True)))


def insert_stream(options: dict[str, Any], stream: HostFeatureStream) -> dict[str, Any]:
    """Gives a call's options with the stream right behind the sources: attention probes have to be the last."""
    patches = options["patches"]
    attention_patches = list(patches["attn1_patch"])
    ours = (HostAttachment, HostFeatureStream)
    at = 1 + max(i for i, patch in enumerate(attention_patches) if isinstance(patch, ours))
    patched = [*attention_patches[:at], stream, *attention_patches[at:]]
    return {**options, "patches": {**patches, "attn1_patch": patched}}
