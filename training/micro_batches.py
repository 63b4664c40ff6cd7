"""Cuts an iteration's samples into batches that a forward can take: of one task, of one bucket, few enough."""

from collections.abc import Mapping, Sequence

from .data.batch_sampler import SampleIndex
from .data.encoded.dataset import EncodedDataset


def split_into_micro_batches(
    samples: Sequence[SampleIndex], datasets: Mapping[str, EncodedDataset], size: int
) -> list[list[SampleIndex]]:
    """Groups samples by task and bucket, in groups of at most `size`."""
    alike: dict[tuple[str, int], list[SampleIndex]] = {}
    for sample in samples:
        alike.setdefault((sample.task, datasets[sample.task].find_bucket(sample.index)), []).append(sample)
    return [group[i : i + size] for group in alike.values() for i in range(0, len(group), size)]
