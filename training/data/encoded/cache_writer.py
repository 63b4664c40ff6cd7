"""Encodes a set into shards on disk, for training that reads them as it goes (cached.py).

What is drawn for a sample (crop, hole, kind of map) is drawn before it is encoded. Training would need the VAE beside
FLUX to draw it anew, so a cache holds several looks at each sample instead: `variants` in the set's table, each drawn
as an epoch of its own would draw it.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....prw.files.safetensors_writer import write_safetensors
from ...encoders.protocol import Encoders
from ..prefetch import prefetch
from ..sample import Example
from ..sets import Knobs, OpenDataset
from ..tasks import EXAMPLE_MAKERS
from ..tasks.examples import ExampleStream
from ..tasks.learned_maps import LearnedMaps
from .cache_index import (
    EMPTY,
    KEY,
    ShardEntry,
    cache_folder,
    claim_cache,
    delete_partial_files,
    read_entries,
    shard_name,
    write_entries,
)
from .dataset import LatentShapes

CHUNK = 32
"""Pictures that are encoded at once."""
COUNT_KNOBS = {"examples", "variants"}
"""Settings that a cache may grow by."""
MIN_FREE = 2**30
"""Bytes that are left free on the disk."""


@dataclass(frozen=True)
class CacheSettings:
    size: int
    """The resolution to train at, in pixels."""
    seed: int
    shard: int = 512
    """Samples in a file."""
    trim: bool = True
    """Leave the text encoder's padding out, where there is any."""


class EncodedSample(NamedTuple):
    """A sample as a shard keeps it: latents and context in bf16."""

    id: str
    prompt: str
    target: Tensor
    source: Tensor
    context: Tensor
    pooled: Tensor

    @property
    def shapes(self) -> LatentShapes:
        return tuple(self.target.shape), tuple(self.source.shape)


class Chunk(NamedTuple):
    """Examples of one shard, to be encoded together."""

    examples: list[Example]
    stream_state: dict[str, Any] | None
    """Where the set's stream stands afterwards, if this is the shard's last chunk."""


class CacheWriter:
    """Writes one process's share of a set into the set's cache folder."""

    def __init__(
        self,
        dataset: OpenDataset,
        task: str,
        encoders: Encoders,
        out: Path,
        settings: CacheSettings,
        rank: int = 0,
        world: int = 1,
    ):
        self.dataset, self.task, self.encoders, self.settings = dataset, task, encoders, settings
        self.rank, self.world = rank, world
        self.trim = settings.trim and encoders.count_tokens([""]) is not None
        self.folder = cache_folder(out, task, dataset.name)
        self.examples: ExampleStream | None = None
        """Those read last, with a tally of what was wrong with them."""

    def describe(self) -> dict[str, Any]:
        """Describes everything that decides what a shard holds; how many there are may change."""
        defaults = vars(Knobs(cache=self.dataset.knobs.cache))
        knobs = {name: value for name, value in vars(self.dataset.knobs).items() if value != defaults[name]}
        maker, kinds = EXAMPLE_MAKERS[self.task], self.dataset.knobs.kinds
        # a cache from before the usual kinds changed names none, and goes on where a table asks for what it has
        as_once = bool(kinds) and kinds == maker.once_usual
        unnamed = COUNT_KNOBS | {"maps"} | ({"kinds"} if as_once else set())
        networks = LearnedMaps(self.dataset.knobs.maps).identity
        usual = {"kinds": None if as_once else maker.usual} if maker.usual and (as_once or not kinds) else {}
        return {
            "set": [repr(self.dataset.reader), {name: knobs[name] for name in sorted(knobs.keys() - unnamed)}],
            "size": self.settings.size,
            "seed, shard": [self.settings.seed, self.settings.shard],
            "processes": self.world,
            "trimmed": self.trim,
            "encoders": self.encoders.identity(),
            **usual,
            **({"maps": networks} if networks else {}),
        }

    def begin(self) -> None:
        """Claims the folder and encodes the empty prompt; the first process alone does so."""
        claim_cache(self.folder, self.describe())
        if not (self.folder / EMPTY).exists():
            context, pooled = self.encoders.encode_prompts([""])
            save_shard(self.folder / EMPTY, {"context": context.bfloat16(), "pooled": pooled.float()}, {})

    def open_examples(self, stream_state: dict[str, Any] | None = None) -> ExampleStream:
        """Opens this process's examples from the beginning, or from where the stream stood."""
        settings = self.settings
        examples = ExampleStream(self.dataset, self.task, settings.size, settings.seed, self.rank, self.world)
        if stream_state is not None:
            examples.stream.load_state_dict(stream_state)
        return examples

    @property
    def wanted(self) -> int:
        """This process's share of the examples that the table asks for; 0: of all."""
        total = self.dataset.knobs.examples
        return total and max(1, len(range(self.rank, total, self.world)))

    def fill(self) -> Iterator[int]:
        """Writes the shards that are missing or damaged; yields after every chunk how many samples there are."""
        delete_partial_files(self.folder, self.rank)
        entries = read_entries(self.folder, self.rank)
        for number, entry in enumerate(entries):
            if not entry.is_whole(self.folder):  # made again from where it began, and the same again
                yield from self._write_shards(entries, number, entry.taken)
        yield from self._write_shards(entries, len(entries), self.wanted)

    def _write_shards(self, entries: list[ShardEntry], number: int, until: int) -> Iterator[int]:
        """Writes from the `number`-th on, up to `until` samples in all; 0: to the end of the set."""
        before = entries[number - 1] if number else None
        done, samples = before.taken if before else 0, []
        if until and done >= until:
            return
        for chunk in prefetch(self._read_chunks(before, until and until - done)):
            samples += encode_samples(self.encoders, chunk.examples, self.trim)
            yield done + len(samples)
            if chunk.stream_state is not None:
                entry = self._write_shard(number, samples, done + len(samples), chunk.stream_state)
                entries[number : number + 1] = [entry]
                write_entries(self.folder, self.rank, entries)
                done, number, samples = entry.taken, number + 1, []

    def _read_chunks(self, before: ShardEntry | None, count: int) -> Iterator[Chunk]:
        self.examples = examples = self.open_examples(before.state if before else None)
        chunk, room = [], self.settings.shard  # room: samples that the shard still takes
        for example in examples.take(count):
            chunk.append(example)
            if len(chunk) == min(CHUNK, room):
                room = room - len(chunk) or self.settings.shard
                is_last = room == self.settings.shard
                yield Chunk(chunk, examples.stream.state_dict() if is_last else None)
                chunk = []
        if chunk or room < self.settings.shard:
            yield Chunk(chunk, examples.stream.state_dict())

    def _write_shard(
        self, number: int, samples: list[EncodedSample], taken: int, stream_state: dict[str, Any]
    ) -> ShardEntry:
        tensors, texts, kinds = pack_shard(samples)
        need, free = sum(tensor.nbytes for tensor in tensors.values()), shutil.disk_usage(self.folder).free
        if need + MIN_FREE > free:
            raise OSError(
                f"The disk of {self.folder} has {free / 2**30:.1f} GiB left, too little for the next shard: make room, and "
                f"give the same command again, which goes on from here."
            )
        path = self.folder / shard_name(self.rank, number)
        save_shard(path, tensors, texts)
        longest = max(len(sample.context) for sample in samples)
        return ShardEntry(path.name, path.stat().st_size, kinds, longest, taken, stream_state)


def encode_samples(encoders: Encoders, examples: Sequence[Example], trim: bool) -> list[EncodedSample]:
    """Encodes examples of any sizes; pictures of one size go through the VAE together."""
    if not examples:
        return []
    latents: dict[int, tuple[Tensor, Tensor]] = {}
    prompts = [example.prompt for example in examples]
    with torch.no_grad():
        for rows in group_by_size(examples):
            pictures = ([getattr(examples[row], name) for row in rows] for name in ("target", "source"))
            targets, sources = (encoders.encode(group).bfloat16().cpu() for group in pictures)
            latents |= {row: (target, source) for row, target, source in zip(rows, targets, sources)}
        context, pooled = encoders.encode_prompts(prompts)
    tokens = (encoders.count_tokens(prompts) if trim else None) or [context.shape[1]] * len(prompts)
    contexts = [context[row, :count].bfloat16().cpu().clone() for row, count in enumerate(tokens)]
    return [
        EncodedSample(example.id, example.prompt.replace("\n", " "), *latents[row], contexts[row], vector)
        for row, (example, vector) in enumerate(zip(examples, pooled.float().cpu()))
    ]


def group_by_size(examples: Sequence[Example]) -> list[list[int]]:
    groups: dict[tuple, list[int]] = {}
    for row, example in enumerate(examples):
        groups.setdefault((example.target.shape, example.source.shape), []).append(row)
    return list(groups.values())


def pack_shard(
    samples: Sequence[EncodedSample],
) -> tuple[dict[str, Tensor], dict[str, list], list[tuple[LatentShapes, int]]]:
    """Gives a shard's tensors, its texts, and how many samples of which shapes lie in it one after the other."""
    groups: dict[LatentShapes, list[EncodedSample]] = {}
    for sample in samples:
        groups.setdefault(sample.shapes, []).append(sample)
    ordered = [sample for group in groups.values() for sample in group]
    tensors = {
        "context": torch.cat([sample.context for sample in ordered]),
        "pooled": torch.stack([sample.pooled for sample in ordered]),
    }
    for number, group in enumerate(groups.values()):
        for name in ("target", "source"):
            tensors[f"{name}.{number}"] = torch.stack([getattr(sample, name) for sample in group])
    texts: dict[str, list] = {
        "ids": [sample.id for sample in ordered],
        "prompts": [sample.prompt for sample in ordered],
        "tokens": [len(sample.context) for sample in ordered],
    }
    return tensors, texts, [(shapes, len(group)) for shapes, group in groups.items()]


def save_shard(path: Path, tensors: dict[str, Tensor], texts: dict[str, Any]) -> None:
    write_safetensors(path, tensors, {KEY: json.dumps(texts)})
