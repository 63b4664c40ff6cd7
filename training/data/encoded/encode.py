"""Examples through the encoders into memory, a chunk at a time: no more pictures than a chunk's are held at once."""

from collections.abc import Callable, Iterable
from itertools import islice

import torch

from ...encoders.protocol import Encoders
from ..sample import Example
from .dataset import MemoryDataset, choose_val_ids, hold_out
from .samples import EncodedSamples, concat_samples


def encode_dataset(
    encoders: Encoders,
    task: str,
    examples: Iterable[Example],
    chunk: int = 32,
    progress: Callable[[int], None] | None = None,
) -> MemoryDataset:
    """Encodes examples of one size; `progress` is told after each chunk how many are done."""
    parts, done, remaining = [], 0, iter(examples)
    while chunk_examples := list(islice(remaining, chunk)):
        parts.append(encode_chunk(encoders, chunk_examples))
        done += len(chunk_examples)
        if progress is not None:
            progress(done)
    if done < 2:
        raise ValueError(f"{task} has {done} examples, expected two or more: add data.")
    samples = concat_samples(parts)
    return hold_out(MemoryDataset(task, samples), choose_val_ids(samples.ids))


@torch.no_grad()
def encode_chunk(encoders: Encoders, examples: list[Example]) -> EncodedSamples:
    target = encoders.encode([example.target for example in examples])
    source = encoders.encode([example.source for example in examples])
    context, pooled = encoders.encode_prompts([example.prompt for example in examples])
    prompts = tuple(example.prompt.replace("\n", " ") for example in examples)
    return EncodedSamples(tuple(example.id for example in examples), prompts, target, source, context, pooled)
