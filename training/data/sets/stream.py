"""A data set as a stream: every process has its share of it, and a position can be saved and loaded.

Hugging Face datasets does the counting. No buffer is shuffled, for what lies in one is lost with the position; shards
come in another order every epoch instead.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ....prw.files.validate import shorten
from ..formats.picture_files import BrokenFile
from ..formats.rows import Row
from ..sample import AnySample, Sample
from .folder import PictureFiles
from .reader import Reader
from .sample_counter import SampleCounter


class Stream:
    """One process's share of a data set, epoch after epoch."""

    def __init__(self, reader: Reader, name: str = "data", rank: int = 0, world: int = 1, seed: int = 0):
        self.reader, self.name, self.rank, self.world, self.seed = reader, name, rank, world, seed
        self.shards = reader.shards()
        self.counter, self.epoch = SampleCounter(name), 0
        self.position: dict[str, Any] | None = None
        self._rows: Any = None

    def __iter__(self) -> Iterator[AnySample | PictureFiles]:
        """Yields what is left of this epoch, without what is broken; iterated again, the next one."""
        self._rows = self._open_rows()
        if self.position is not None:
            self._rows.load_state_dict(self.position)
        for row in self._rows:
            self.counter.seen += 1
            try:
                sample = read_sample(self.reader, row)
            except BrokenFile as error:
                self.counter.add_broken(row["id"], error)
            else:
                yield sample
        self.epoch, self.position, self._rows = self.epoch + 1, None, None
        self.counter.check_share()

    def _open_rows(self) -> Any:
        """Opens the epoch's rows that are this process's, as an IterableDataset."""
        datasets = import_datasets()
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.shards))
        shards = [self.shards[i] for i in order]
        try:  # it locks a file in its cache, and leaves it there, empty
            rows = datasets.IterableDataset.from_generator(
                iterate_rows, gen_kwargs={"reader": self.reader, "shards": shards}
            )
        except OSError as error:
            raise ValueError(
                f"The package datasets cannot write its cache ({shorten(error)}), expected a folder that it may write: set "
                f"the environment variable HF_DATASETS_CACHE to one."
            ) from None
        if self.world == 1:
            return rows
        # whole shards if there are enough: else each process passes over the others' rows
        strategy = "shards" if len(shards) >= self.world else "examples"
        return datasets.distributed.split_dataset_by_node(rows, self.rank, self.world, strategy=strategy)

    def state_dict(self) -> dict[str, Any]:
        position = self.position if self._rows is None else self._rows.state_dict()
        return {"of": self._identity(), "epoch": self.epoch, "place": position, "tally": self.counter.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["of"] != self._identity():
            raise ValueError(
                f"The place that was kept for {self.name} is of {state['of']}, this is {self._identity()}: go on with the "
                f"same data, seed and number of processes, or start anew."
            )
        self.epoch, self.position, self._rows = state["epoch"], state["place"], None
        self.counter = SampleCounter(**state["tally"])

    def _identity(self) -> dict[str, Any]:
        return {"rank": self.rank, "world": self.world, "seed": self.seed, "shards": len(self.shards)}


def read_sample(reader: Reader, row: Row) -> AnySample | PictureFiles:
    """Reads a row's sample; whatever is wrong with it is a `BrokenFile`."""
    try:
        if "broken" in row:
            raise BrokenFile(row["broken"])
        sample = reader.read(row)
        check_texts(sample)
        return sample
    except BrokenFile:
        raise
    except Exception as error:  # a record of strangers can make its reader, or a library, raise anything
        raise BrokenFile(f"{type(error).__name__}: {error}") from error


def check_texts(sample: AnySample | PictureFiles) -> None:
    """Raises for text that is none: half a character, which no tokenizer and no file takes."""
    things = sample.things if isinstance(sample, Sample) else ()
    fields = {"id": sample.id} if isinstance(sample, PictureFiles) else vars(sample)
    texts = [value for value in fields.values() if isinstance(value, str)]
    for text in (*texts, *(word for thing in things for word in (thing.name, thing.kind))):
        try:
            text.encode()
        except UnicodeError:
            raise BrokenFile(f"{text!r} is no text in UTF-8") from None


def iterate_rows(reader: Reader, shards: list) -> Iterator[Row]:
    """Yields the shards' rows; what is wrong with a shard becomes a row that says so."""
    for shard in shards:
        try:
            yield from reader.rows(shard)
        except BrokenFile as error:
            yield {"id": str(shard), "broken": str(error)}
        except Exception as error:  # as in read_sample
            yield {"id": str(shard), "broken": f"{type(error).__name__}: {error}"}


def import_datasets() -> Any:
    try:
        import datasets.distributed
    except ImportError:
        raise ValueError(
            "Data sets are read by the package datasets, which is not installed: pip install datasets, or train from "
            "a folder of pictures in ComfyUI."
        ) from None
    return datasets
