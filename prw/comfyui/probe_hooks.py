"""Attention probes in a model call of the host: its options with our two patches, and what a probe has to know."""

from collections.abc import Hashable, Iterable
from typing import Any

import comfy.model_patcher

from ..personalization.attention_probe import PROBES, AttentionProbe, add_residuals, observe_attention
from ..personalization.marked_prompt import MARKED_TOKENS, MarkedTokens
from ..positions import token_grid
from ..weaving import named_blocks
from .host import ComfyHost

PATCHES = {"attn1_patch": observe_attention, "attn1_output_patch": add_residuals}


def add_probes(model_options: dict[str, Any], *probes: AttentionProbe) -> dict[str, Any]:
    """Gives the options of one model call with more probes, and our patches behind all others."""
    options = comfy.model_patcher.create_model_options_clone(model_options)
    inner = options["transformer_options"]
    inner[PROBES] = (*inner.get(PROBES, ()), *probes)
    patches = inner.setdefault("patches", {})
    for kind, patch in PATCHES.items():
        patches[kind] = [other for other in patches.get(kind, ()) if other is not patch] + [patch]
    return options


def probe_fields(
    base, conds: list, x, model_options: dict[str, Any], first: int = 0, last: int | None = None
) -> dict[str, Any]:
    """Gives an AttentionProbe's fields for pictures x of these prompts, in blocks `first` to `last`."""
    rows, columns = token_grid(x, base.diffusion_model.patch_size)
    return dict(
        tokens=_marked_tokens(conds),
        blocks=frozenset(block_names(base, first, last)),
        picture_length=rows * columns,
        make_attention=ComfyHost(base, model_options["transformer_options"]).make_attention,
    )


def block_names(base, first: int = 0, last: int | None = None) -> list[str]:
    """Names of the model's blocks `first` to `last`, double blocks first."""
    names = [name for name, _ in named_blocks(base.diffusion_model)]
    return names[first : None if last is None else last + 1]


def _marked_tokens(conds: Iterable[dict[str, Any]]) -> dict[Hashable, MarkedTokens]:
    """Collects the marked tokens of the conds that have any, by the uuid that the host gives a cond."""
    tokens = {}
    for entry in conds:
        if MARKED_TOKENS in entry:
            if "area" in entry:
                raise ValueError(
                    "A marked prompt has an area of the picture, expected all of it: leave out its Set Area node."
                )
            tokens[entry["uuid"]] = entry[MARKED_TOKENS]
    return tokens
