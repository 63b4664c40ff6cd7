"""How sources travel through ComfyUI's CONDITIONING: as a condition of their own beside the text's."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from torch import Tensor

from ..source import Reading, Source

COND = "cologen_sources"
AUXILIARY = "cologen_auxiliary"
"""The guider's conds of an auxiliary branch, which fits its sources itself (dual_branch_sampling.py)."""


class SourceCond:
    """The sources of one conditioning entry, with the methods that the host asks of a condition.

    Entries with other sources run in another batch.
    """

    def __init__(self, cond: tuple[Reading, ...]):
        self.cond = cond

    def size(self) -> list[int]:
        return [1]

    def can_concat(self, other: "SourceCond") -> bool:
        return [s.identity for s in self.cond] == [s.identity for s in other.cond]

    def process_cond(self, batch_size: int, **kwargs) -> "SourceCond":
        return self

    def concat(self, others: list["SourceCond"]) -> "Sources":
        return Sources(self.cond)


class Sources(tuple):
    """Sources as they reach a model call; on a model without our wrapper they raise an error."""

    @property
    def dtype(self) -> NoReturn:
        # The host asks every condition for its dtype. Where CoLoGen Apply is missing this is the only
        # place that can keep it from ignoring the source without a word.
        raise ValueError(
            "This conditioning carries a CoLoGen source, but the MODEL has no CoLoGen bank: "
            "put CoLoGen Apply between the model loader and the sampler."
        )


def add_source(conditioning: list, source: Reading) -> list:
    """Gives the conditioning with one more source in every entry; pictures are numbered in order."""
    out = []
    for embedding, options in conditioning:
        known = list_sources(options)
        if isinstance(source, Source):
            source = replace(source, number=1 + sum(isinstance(one, Source) for one in known))
        out.append([embedding, set_sources(options, (*known, source))])
    return out


def read_prompt(conditioning: list) -> Tensor:
    """Reads the encoded text of a conditioning that has one entry."""
    if len(conditioning) != 1:
        raise ValueError(
            f"The prompt holds {len(conditioning)} entries, expected one: connect what a text encode node gives."
        )
    return conditioning[0][0].detach().clone()


def map_sources(options: dict[str, Any], change: Callable[[Reading], Reading]) -> dict[str, Any]:
    """Gives a conditioning entry's options with each of its sources changed."""
    sources = list_sources(options)
    return set_sources(options, map(change, sources)) if sources else options


def change_source(conditioning: list, number: int, **knobs: Any) -> list:
    """Gives the conditioning with other knobs for its source of that number, in every entry that has one."""
    out = []
    for embedding, options in conditioning:
        sources = list(list_sources(options))
        if number < len(sources):
            sources[number] = replace(sources[number], **knobs)
            options = set_sources(options, sources)
        out.append([embedding, options])
    return out


def remove_sources(conditioning: list) -> list:
    """Returns the conditioning without its sources."""
    out = []
    for embedding, options in conditioning:
        conds = {key: cond for key, cond in options.get("model_conds", {}).items() if key != COND}
        out.append([embedding, {**options, "model_conds": conds}])
    return out


def set_sources(options: dict[str, Any], sources: Iterable[Reading]) -> dict[str, Any]:
    """Gives a conditioning entry's options with these sources in place of its own."""
    return {**options, "model_conds": {**options.get("model_conds", {}), COND: SourceCond(tuple(sources))}}


def list_sources(options: dict[str, Any]) -> Sequence[Reading]:
    """Lists the sources that a conditioning entry's options carry."""
    return getattr(options.get("model_conds", {}).get(COND), "cond", ())
