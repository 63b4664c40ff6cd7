"""How a Watch comes into a model call of the host."""

from collections.abc import Hashable, Iterable
from typing import Any

import comfy.model_patcher

from ..personalization.attention_probe import OPTION, Watch, answer, look
from ..personalization.marked_prompt import WORDS, Words
from ..positions import token_grid
from ..weaving import named_blocks
from .patch import ComfyHost

HOOKS = {"attn1_patch": look, "attn1_output_patch": answer}


def watched(model_options: dict[str, Any], *watches: Watch) -> dict[str, Any]:
    """The options of one model call with more watches in them, and our hooks behind all others."""
    options = comfy.model_patcher.create_model_options_clone(model_options)
    inner = options["transformer_options"]
    inner[OPTION] = (*inner.get(OPTION, ()), *watches)
    patches = inner.setdefault("patches", {})
    for kind, hook in HOOKS.items():
        patches[kind] = [patch for patch in patches.get(kind, ()) if patch is not hook] + [hook]
    return options


def settings(base, conds: list, x, model_options: dict[str, Any], first: int = 0, last: int | None = None) -> dict:
    """What a watch has to know to look at these prompts' pictures in blocks `first` to `last`."""
    rows, columns = token_grid(x, base.diffusion_model.patch_size)
    return dict(
        words=_words(conds),
        blocks=frozenset(block_names(base, first, last)),
        picture=rows * columns,
        attend=ComfyHost(base, model_options["transformer_options"]).attend,
    )


def block_names(base, first: int = 0, last: int | None = None) -> list[str]:
    names = [name for name, _ in named_blocks(base.diffusion_model)]
    return names[first : None if last is None else last + 1]


def _words(conds: Iterable[dict[str, Any]]) -> dict[Hashable, Words]:
    """Marked words by the host's name for their prompt."""
    found = {}
    for entry in conds:
        if WORDS in entry:
            if "area" in entry:
                raise ValueError(
                    "A marked prompt has an area of the picture, expected all of it: leave out its Set Area node."
                )
            found[entry["uuid"]] = entry[WORDS]
    return found
