"""What reading lessons from a cache takes, against the same samples read by Hugging Face datasets, which many
trainers read with; and how busy caching keeps the encoders.

The peers get what suits them: Arrow with every tensor as raw bytes, mapped into memory and read in the same random
order; and a WebDataset tar, which can only be read from end to end.
"""

import io
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.encoded.cached import CachedLessons, open_cached
from ..data.encoded.dataset import TENSORS
from ..data.encoded.encode import Cache, Encoded, packed, save
from ..data.encoded.index import EMPTY, Entry, claim_cache, note_entries, shard_name
from ..data.sets import open_source

WIDTH, POOLED, PADDED = 4096, 768, 256
SHARD = 64
PADDING = torch.linspace(-1, 1, PADDED, dtype=torch.bfloat16)[:, None].repeat(1, WIDTH)
"""What T5 might make of it."""
DTYPES = {"pooled": torch.float32}
"""Of what is not bf16."""
Batch = dict[str, Tensor]


def loader(samples: int, side: int, tokens: int, batch: int, repeats: int) -> dict:
    with TemporaryDirectory() as name:
        made, folder = random_samples(samples, side // 8, tokens), Path(name)
        ours = written(made, folder / "cache")
        order = np.random.default_rng(0).permutation(samples)
        batches = [order[i : i + batch].tolist() for i in range(0, samples, batch)]
        ways: dict[str, Callable[[], Iterator[Batch]]] = {
            "cache": lambda: ({name: vars(lessons)[name] for name in TENSORS} for lessons in map(ours.rows, batches)),
            "arrow": arrow(made, folder / "arrow", batches),
            "webdataset": webdataset(made, folder / "peer.tar", batch),
        }
        mine, theirs = next(ways["cache"]()), next(ways["arrow"]())
        if not all(torch.equal(mine[name], theirs[name]) for name in TENSORS):
            raise RuntimeError("Cache and Arrow give different samples, expected the same: the figures are void.")
        rates = interleaved(ways, samples, repeats)
        return {
            **{f"{way}_samples_a_second": rate for way, rate in rates.items()},
            "cache_over_arrow": rates["cache"] / rates["arrow"],
            "cache_over_webdataset": rates["cache"] / rates["webdataset"],
            "encoders_share_of_caching": busy(folder / "pictures"),
            "sample_kib": sum(tensor.nbytes for tensor in made[0][2:]) / 2**10,
            "batch": batch,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


def random_samples(count: int, side: int, tokens: int) -> list[Encoded]:
    """FLUX.1's shapes; prompts of different lengths."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g).bfloat16()

    def one(i: int) -> Encoded:
        latents = normal(16, side, side), normal(16, side, side)
        return Encoded(str(i), str(i), *latents, normal(tokens // 2 + i % tokens, WIDTH), normal(POOLED).float())

    return [one(i) for i in range(count)]


def written(samples: Sequence[Encoded], out: Path) -> CachedLessons:
    folder, entries = out / "inpaint-random", []
    claim_cache(folder, {"trimmed": True, "encoders": "random"})
    save(folder / EMPTY, {"context": PADDING[None], "pooled": torch.zeros(1, POOLED)}, {})
    for number, start in enumerate(range(0, len(samples), SHARD)):
        some = samples[start : start + SHARD]
        tensors, texts, kinds = packed(some)
        path = folder / shard_name(0, number)
        save(path, tensors, texts)
        longest = max(len(one.context) for one in some)
        entries.append(Entry(path.name, path.stat().st_size, kinds, longest, start + len(some), {}))
    note_entries(folder, 0, entries)
    return CachedLessons([open_cached(folder, "inpaint", out / "note.json", {"encoders": "random"})])


def raw(tensor: Tensor) -> bytes:
    return tensor.view(torch.uint8).numpy().tobytes()


def unpacked(found: Mapping[str, Sequence[bytes]], shapes: Mapping[str, tuple[int, ...]]) -> Batch:
    """What the loop is given, from raw bytes: latents in fp32, words filled up with the padding's."""
    rows = {
        name: [
            torch.frombuffer(bytearray(data), dtype=DTYPES.get(name, torch.bfloat16)).view(shape)
            for data in found[name]
        ]
        for name, shape in shapes.items()
    }
    context = PADDING.expand(len(rows["context"]), -1, -1).clone()
    for row, own in zip(context, rows["context"]):
        row[: len(own)] = own
    latents = {name: torch.stack(rows[name]).float() for name in ("target", "source")}
    return {**latents, "context": context, "pooled": torch.stack(rows["pooled"])}


def shapes_of(one: Encoded) -> dict[str, tuple[int, ...]]:
    return {"target": one.target.shape, "source": one.source.shape, "context": (-1, WIDTH), "pooled": (POOLED,)}


def arrow(samples: Sequence[Encoded], folder: Path, batches: list[list[int]]) -> Callable[[], Iterator[Batch]]:
    import datasets

    columns = {name: [raw(getattr(one, name)) for one in samples] for name in TENSORS}
    datasets.Dataset.from_dict(columns).save_to_disk(folder)
    mapped, shapes = datasets.load_from_disk(folder), shapes_of(samples[0])
    return lambda: (unpacked(mapped[rows], shapes) for rows in batches)


def webdataset(samples: Sequence[Encoded], path: Path, batch: int) -> Callable[[], Iterator[Batch]]:
    import datasets

    with tarfile.open(path, "w") as tar:
        for one in samples:
            for name in TENSORS:
                data = raw(getattr(one, name))
                member = tarfile.TarInfo(f"{one.id}.{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    stream = datasets.load_dataset("webdataset", data_files={"train": [str(path)]}, split="train", streaming=True)
    shapes = shapes_of(samples[0])
    return lambda: (unpacked(found, shapes) for found in stream.batch(batch))


def interleaved(ways: dict[str, Callable[[], Iterator[Batch]]], samples: int, repeats: int) -> dict[str, float]:
    """Samples a second of each way, the median, after a round that opens the files."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats + 1):
        for way, read in ways.items():
            start = time.perf_counter()
            seen = sum(len(found["target"]) for found in read())
            seconds[way].append(time.perf_counter() - start)
            if seen != samples:
                raise RuntimeError(f"{way} read {seen} of {samples} samples, expected all: the figures are void.")
    return {way: samples / float(np.median(times[1:])) for way, times in seconds.items()}


class TimedCodec:
    """FLUX.1's VAE, random and a quarter as wide, and no text encoder; counts the seconds that it works."""

    def __init__(self):
        from diffusers import AutoencoderKL

        from ..encoders.open_models import BLOCK_TYPES, LEVELS

        kinds = {key: (kind,) * len(LEVELS) for key, kind in BLOCK_TYPES.items()}
        widths = tuple(32 * level for level in LEVELS)
        self.vae = AutoencoderKL(**kinds, block_out_channels=widths, layers_per_block=2, latent_channels=16).eval()
        self.seconds = 0.0

    def encode(self, pictures: Sequence[np.ndarray]) -> Tensor:
        start = time.perf_counter()
        pixels = torch.from_numpy(np.stack(pictures)).movedim(-1, 1).float() / 127.5 - 1
        latents = self.vae.encode(pixels).latent_dist.mean
        self.seconds += time.perf_counter() - start
        return latents

    def texts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(prompts), PADDED, WIDTH), torch.zeros(len(prompts), POOLED)

    def identity(self) -> str:
        return "random"


def busy(folder: Path, count: int = 16, side: int = 256) -> float:
    """The part of the time in which the encoders work while pictures are read, cropped, encoded and written."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, (side // 4, side // 4, 3), np.uint8)
        Image.fromarray(pixels).resize((2 * side, 2 * side)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"picture {i}", encoding="utf-8")
    codec = TimedCodec()
    cache = Cache(open_source("folder", {"path": str(folder)}), "inpaint", codec, folder / "out", side, 0, shard=count)
    cache.begin()
    start = time.perf_counter()
    for _ in cache.fill():
        pass
    return codec.seconds / (time.perf_counter() - start)
