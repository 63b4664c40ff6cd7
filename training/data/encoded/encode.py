"""Encodes a set into shards on disk, for training that reads them as it goes (lessons.py).

What is drawn for a sample (crop, hole, kind of map) is drawn before it is encoded. Training would need the VAE beside
FLUX to draw it anew, so a cache holds several looks at each sample instead: `variants` in the set's table, each drawn
as an epoch of its own would draw it.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....prw.files.safetensors_writer import write
from ..prefetch import ahead
from ..sample import Example
from ..sets import Knobs, Source
from ..tasks.examples import Examples
from .dataset import Codec
from .index import EMPTY, KEY, Entry, Kind, claim_cache, clear_parts, entries_of, folder_of, note_entries, shard_name

CHUNK = 32
"""Pictures that are encoded at once."""
HOW_MANY = {"examples", "variants"}
"""Settings that a cache may grow by."""
SPARE = 2**30
"""Bytes that are left free on the disk."""


class Encoded(NamedTuple):
    """A sample as it is kept: latents and words in bf16."""

    id: str
    prompt: str
    target: Tensor
    source: Tensor
    context: Tensor
    pooled: Tensor

    @property
    def kind(self) -> Kind:
        return tuple(self.target.shape), tuple(self.source.shape)


class Load(NamedTuple):
    """Examples of one shard."""

    examples: list[Example]
    after: dict[str, Any] | None
    """Where the stream stands, if they complete it."""


class Cache:
    """A set's share of one process."""

    def __init__(
        self,
        source: Source,
        task: str,
        codec: Codec,
        out: Path,
        size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        shard: int = 512,
        trim: bool = True,
    ):
        self.source, self.task, self.codec, self.size, self.seed = source, task, codec, size, seed
        self.rank, self.world, self.shard = rank, world, shard
        self.trim = trim and hasattr(codec, "lengths")
        self.folder = folder_of(out, task, source.name)
        self.read: Examples | None = None
        """What was read last, and what was wrong with it."""

    def about(self) -> dict[str, Any]:
        """Everything that decides what a shard holds; how many there are may change."""
        usual = vars(Knobs(cache=self.source.knobs.cache))
        knobs = {name: value for name, value in vars(self.source.knobs).items() if value != usual[name]}
        return {
            "set": [repr(self.source.reader), {name: knobs[name] for name in sorted(knobs.keys() - HOW_MANY)}],
            "size": self.size,
            "seed, shard": [self.seed, self.shard],
            "processes": self.world,
            "trimmed": self.trim,
            "encoders": self.codec.identity(),
        }

    def begin(self) -> None:
        """By the first process."""
        claim_cache(self.folder, self.about())
        if not (self.folder / EMPTY).exists():
            context, pooled = self.codec.texts([""])
            save(self.folder / EMPTY, {"context": context.bfloat16(), "pooled": pooled.float()}, {})

    def examples(self, state: dict[str, Any] | None = None) -> Examples:
        found = Examples(self.source, self.task, self.size, self.seed, self.rank, self.world)
        if state is not None:
            found.stream.load_state_dict(state)
        return found

    @property
    def wanted(self) -> int:
        """This process's share of the examples that the table asks for; 0: of all."""
        whole_set = self.source.knobs.examples
        return whole_set and max(1, len(range(self.rank, whole_set, self.world)))

    def fill(self) -> Iterator[int]:
        """Makes what is missing; tells after every chunk how many samples are there."""
        clear_parts(self.folder, self.rank)
        entries = entries_of(self.folder, self.rank)
        for number, entry in enumerate(entries):
            if not entry.whole(self.folder):  # made again from where it began, and the same again
                yield from self._shards(entries, number, entry.taken)
        yield from self._shards(entries, len(entries), self.wanted)

    def _shards(self, entries: list[Entry], number: int, until: int) -> Iterator[int]:
        """From the `number`-th on, up to so many samples; 0: to the end of the set."""
        before = entries[number - 1] if number else None
        done, made = before.taken if before else 0, []
        if until and done >= until:
            return
        for load in ahead(self._loads(before, until and until - done)):
            made += encoded(self.codec, load.examples, self.trim)
            yield done + len(made)
            if load.after is not None:
                entry = self._written(number, made, done + len(made), load.after)
                entries[number : number + 1] = [entry]
                note_entries(self.folder, self.rank, entries)
                done, number, made = entry.taken, number + 1, []

    def _loads(self, before: Entry | None, count: int) -> Iterator[Load]:
        self.read = examples = self.examples(before.state if before else None)
        some, left = [], self.shard
        for example in examples.taken(count):
            some.append(example)
            if len(some) == min(CHUNK, left):
                left = left - len(some) or self.shard
                yield Load(some, examples.stream.state_dict() if left == self.shard else None)
                some = []
        if some or left < self.shard:
            yield Load(some, examples.stream.state_dict())

    def _written(self, number: int, made: list[Encoded], taken: int, state: dict[str, Any]) -> Entry:
        tensors, texts, kinds = packed(made)
        need, free = sum(tensor.nbytes for tensor in tensors.values()), shutil.disk_usage(self.folder).free
        if need + SPARE > free:
            raise OSError(
                f"The disk of {self.folder} has {free / 2**30:.1f} GiB left, too little for the next shard: make room, and "
                f"give the same command again, which goes on from here."
            )
        path = self.folder / shard_name(self.rank, number)
        save(path, tensors, texts)
        longest = max(len(one.context) for one in made)
        return Entry(path.name, path.stat().st_size, kinds, longest, taken, state)


def encoded(codec: Codec, examples: Sequence[Example], trim: bool) -> list[Encoded]:
    """Pictures of one size go through the VAE together."""
    if not examples:
        return []
    latents: dict[int, tuple[Tensor, Tensor]] = {}
    with torch.no_grad():
        for some in alike(examples):
            both = ([getattr(examples[i], name) for i in some] for name in ("target", "source"))
            parts = [codec.encode(pictures).bfloat16().cpu() for pictures in both]
            latents |= {i: (target, source) for i, target, source in zip(some, *parts)}
        prompts = [example.prompt for example in examples]
        context, pooled = codec.texts(prompts)
    lengths = codec.lengths(prompts) if trim else [context.shape[1]] * len(prompts)
    return [
        Encoded(example.id, example.prompt.replace("\n", " "), *latents[i], context[i, :n].bfloat16().cpu().clone(), p)
        for i, (example, n, p) in enumerate(zip(examples, lengths, pooled.float().cpu()))
    ]


def alike(examples: Sequence[Example]) -> list[list[int]]:
    groups: dict[tuple, list[int]] = {}
    for i, example in enumerate(examples):
        groups.setdefault((example.target.shape, example.source.shape), []).append(i)
    return list(groups.values())


def packed(samples: Sequence[Encoded]) -> tuple[dict[str, Tensor], dict[str, Any], list[tuple[Kind, int]]]:
    """A shard's tensors, its texts, and which kinds lie in it one after the other."""
    groups: dict[Kind, list[Encoded]] = {}
    for sample in samples:
        groups.setdefault(sample.kind, []).append(sample)
    row = [sample for group in groups.values() for sample in group]
    tensors = {"context": torch.cat([one.context for one in row]), "pooled": torch.stack([one.pooled for one in row])}
    for number, group in enumerate(groups.values()):
        for name in ("target", "source"):
            tensors[f"{name}.{number}"] = torch.stack([getattr(one, name) for one in group])
    texts = {"ids": [one.id for one in row], "prompts": [one.prompt for one in row]}
    texts["tokens"] = [len(one.context) for one in row]
    return tensors, texts, [(kind, len(group)) for kind, group in groups.items()]


def save(path: Path, tensors: dict[str, Tensor], texts: dict[str, Any]) -> None:
    write(path, tensors, {KEY: json.dumps(texts)})
