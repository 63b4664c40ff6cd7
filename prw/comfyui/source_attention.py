"""Who is read where: which share of its attention each place of a drawn picture gives to each source.

The picture is shown to the model a few times more, with noise added again, and nothing is drawn. A patch behind all
others sees each block's q, k and mask as FLUX's attention does; it is on a clone of MODEL, so that sampling itself is as
without it.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ..appended_kv import OPTION, AppendedKV
from ..attention_share import measure_shares
from ..flux.families import find_model_family
from ..learned_keys import LearnedSource
from ..positions import token_grid
from ..source import Reading, Source
from ..weaving import named_blocks
from .conditioning import list_sources
from .dual_branch_sampling import find_dual_branch
from .host import pause_malloc_graph
from .patch import require_attachment

NOISE_SEED = 0
KINDS = {"all": ("double", "single"), "double": ("double",), "single": ("single",)}
"""A choice of blocks -> the host's names for their kinds."""


class SourceAttention(NamedTuple):
    """Where a picture reads one source."""

    title: str
    shares: Tensor
    """(pictures, rows, columns) in 0..1: each token's, the mean over heads, blocks and times."""


class AttentionRecorder:
    """An `attn1_patch` that adds up what pictures of the positive prompt give to each source; the last of its kind."""

    def __init__(self, kinds: Collection[str]):
        self.kinds = kinds
        self.sums: dict[str, Tensor] = {}
        """By a source's identity: (pictures, tokens), of all blocks and calls."""

    @torch.compiler.disable()
    def __call__(self, q, k, v, pe: Any = None, attn_mask=None, extra_options: dict[str, Any] | None = None) -> dict:
        options = extra_options or {}
        appended: AppendedKV | None = options.get(OPTION)
        if appended is not None and options["block_type"] in self.kinds:
            text = options["img_slice"][0]
            picture = slice(text, text + appended.grid.rows * appended.grid.columns)
            own = [(kv.source, columns) for kv, columns in appended.find_columns() if not kv.is_shared]
            with pause_malloc_graph():
                shares = measure_shares(q, k, pe, attn_mask, picture, [columns for _, columns in own])
                for (source, _), share in zip(own, shares, strict=True):
                    self._add(source, share, options["cond_or_uncond"])
        return {}

    def _add(self, source: Reading, share: Tensor, prompts: Sequence[int]) -> None:
        """Adds what samples (batch, tokens) give to a source; of the batch's prompts the positive ones are 0."""
        parts = [part for part, prompt in zip(share.chunk(len(prompts)), prompts, strict=True) if prompt == 0]
        if parts:
            known = self.sums.get(source.identity, 0.0)
            self.sums[source.identity] = known + torch.stack(parts).sum(0)


class NoisedViews:
    """A sampling function that draws nothing: the model sees the picture at each level of noise."""

    def __init__(self):
        self.positive: list[dict[str, Any]] = []
        """The prompt's entries as the model saw them: their sources are fitted to its bank."""

    def __call__(self, model, x: Tensor, sigmas: Tensor, extra_args=None, callback=None, disable=None) -> Tensor:
        guider = model.inner_model
        self.positive = guider.conds["positive"]
        if any("area" in entry for entry in self.positive):
            raise ValueError(
                "The prompt has an area of the picture, expected all of it: leave out its Set Area node for this map."
            )
        for i, sigma in enumerate(sigmas[:-1]):
            noised = guider.inner_model.model_sampling.noise_scaling(sigma, model.noise, model.latent_image)
            denoised = model(noised, sigma.expand(len(x)), **(extra_args or {}))
            if callback is not None:
                callback({"i": i, "denoised": denoised, "x": noised, "sigma": sigma, "sigma_hat": sigma})
        return x


def record_attention(
    model, conditioning: list, latent: dict[str, Any], steps: int = 4, blocks: str = "all"
) -> list[SourceAttention]:
    """Records where a drawn latent reads each source of its prompt, in so many equal parts of the sampling."""
    require_attachment(model)
    samples = _check_drawn(model, conditioning, latent)
    recorder, views = AttentionRecorder(KINDS[blocks]), NoisedViews()
    patched = model.clone()
    patched.set_model_attn1_patch(recorder)
    guider = comfy.samplers.CFGGuider(patched)
    guider.inner_set_conds({"positive": conditioning})
    noise = comfy.sample.prepare_noise(samples, NOISE_SEED)
    progress = comfy.utils.ProgressBar(steps)
    guider.sample(
        noise,
        samples,
        comfy.samplers.KSAMPLER(views),
        find_middles(model, steps),
        denoise_mask=latent.get("noise_mask"),
        callback=lambda step, *_: progress.update_absolute(step + 1, steps),
        disable_pbar=True,
        seed=NOISE_SEED,
    )
    counted = count_blocks(model, blocks) * steps
    grid = token_grid(samples, model.model.diffusion_model.patch_size)
    return list(average_sources(views.positive, recorder.sums, counted, (len(samples), *grid)))


def _check_drawn(model, conditioning: list, latent: dict[str, Any]) -> Tensor:
    """Gives the latent's samples; raises where there is nothing to look at."""
    if find_dual_branch(model) is not None:
        raise ValueError(
            "The MODEL draws two branches, expected one: connect it from before CoLoGen Dual Branch for this map."
        )
    if not any(list_sources(options) for _, options in conditioning):
        raise ValueError(
            "The conditioning has no source to be read, expected one: put a task, such as CoLoGen Edit, before this node."
        )
    if not torch.count_nonzero(latent["samples"]):
        raise ValueError("The latent is empty, expected a drawn one: connect what the sampler gives.")
    return latent["samples"]


def find_middles(model, steps: int) -> Tensor:
    """Finds the noise in the middle of each of so many equal parts of the sampling (our choice: the middle);
    0 behind them."""
    to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    return torch.tensor([*(float(to_sigma((i + 0.5) / steps)) for i in range(steps)), 0.0])


def measure_token(model) -> tuple[int, int]:
    """Gives pixels along the side of one of the model's latents, and of one token."""
    flux = model.model.diffusion_model
    pixels = find_model_family(flux).latent_pixels
    return pixels, pixels * flux.patch_size


def count_blocks(model, blocks: str) -> int:
    """Counts how many blocks of the model a choice of them names."""
    return sum(name.startswith(KINDS[blocks]) for name, _ in named_blocks(model.model.diffusion_model))


def average_sources(
    positive: Sequence[dict[str, Any]], sums: dict[str, Tensor], counted: int, shape: tuple[int, int, int]
) -> Iterator[SourceAttention]:
    """Averages each source's mean share in `counted` blocks and times and all entries of the prompt that carry it."""
    entries: dict[str, list[Reading]] = {}
    for source in (source for options in positive for source in list_sources(options)):
        entries.setdefault(source.identity, []).append(source)
    for i, (identity, same) in enumerate(entries.items(), 1):
        shares = sums[identity] / (counted * len(same)) if identity in sums else torch.zeros(shape)
        yield SourceAttention(f"{describe_source(same[0])}, source {i}", shares.reshape(shape).float().cpu())


def describe_source(source: Reading) -> str:
    """Describes what a source is, in a word."""
    if isinstance(source, Source):
        return source.routing.task
    return source.learned.name if isinstance(source, LearnedSource) else "keys"
