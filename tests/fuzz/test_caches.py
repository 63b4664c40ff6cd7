"""Damaged caches and samples of a run: each is refused in a sentence, or gives samples that fit together."""

import json
import shutil

import pytest
import torch
from cologen.training.data.encoded.cache_index import EMPTY, ShardEntry, claim_cache, write_entries
from cologen.training.data.encoded.cache_writer import EncodedSample, pack_shard, save_shard
from cologen.training.data.encoded.cached import JoinedDataset, open_cached
from cologen.training.data.encoded.dataset import MemoryDataset, load_dataset
from cologen.training.data.encoded.samples import EncodedSamples
from mutate import dump, mutate_bytes, mutate_file, mutate_json, pick

SIZES = ((4, 4), (4, 6))
WIDTH, POOLED = 8, 4


def draw_sample(number):
    g = torch.Generator().manual_seed(number)
    latents = [torch.randn(16, *SIZES[number % 2], generator=g) for _ in range(2)]
    context = torch.randn(1 + number % 3, WIDTH, generator=g)
    return EncodedSample(f"id-{number}", f"prompt {number}", *latents, context, torch.randn(POOLED, generator=g))


def save_cache(folder):
    folder.mkdir()
    claim_cache(folder, {"trimmed": True, "encoders": "exact"})
    save_shard(folder / EMPTY, {"context": torch.zeros(1, 2, WIDTH), "pooled": torch.zeros(1, POOLED)}, {})
    entries = []
    for number in range(2):
        tensors, texts, kinds = pack_shard([draw_sample(4 * number + i) for i in range(4)])
        path = folder / f"000-{number:06}.safetensors"
        save_shard(path, tensors, texts)
        entries.append(ShardEntry(path.name, path.stat().st_size, kinds, 3, 4 * (number + 1), {"at": number}))
    write_entries(folder, 0, entries)


def damage(rng, folder):
    """One file is another; half the time the list knows its new length."""
    path = pick(rng, sorted(folder.iterdir()))
    data = path.read_bytes()
    if path.suffix == ".safetensors":
        path.write_bytes(mutate_file(rng, data))
    else:
        path.write_bytes(mutate_bytes(rng, data) if rng.random() < 0.2 else dump(mutate_json(rng, json.loads(data))))
    index = folder / "000.json"
    if path.suffix == ".safetensors" and rng.random() < 0.5:
        entries = json.loads(index.read_text())
        for entry in entries:
            entry["size"] = (folder / entry["file"]).stat().st_size
        index.write_text(json.dumps(entries))


def check(samples, rows):
    assert len(samples.ids) == len(samples.prompts) == rows
    assert all(isinstance(text, str) for text in (*samples.ids, *samples.prompts))
    assert samples.context.shape[::2] == (rows, WIDTH) and samples.pooled.shape == (rows, POOLED)
    assert samples.target.shape[:2] == samples.source.shape[:2] == (rows, 16)


def read_all(dataset):
    """Each sample alone: of which sizes they are is the dataset's to say."""
    for index in range(len(dataset)):
        check(dataset.read_samples([index]), 1)


def test_damaged_caches(tmp_path, fuzz):
    whole, folder = tmp_path / "whole", tmp_path / "cache"
    save_cache(whole)

    def read():
        (tmp_path / "run.json").unlink(missing_ok=True)
        (tmp_path / "run-of.json").unlink(missing_ok=True)
        read_all(JoinedDataset([open_cached(folder, "control", tmp_path / "run.json", {"encoders": "exact"})]))

    def attempt(rng):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        damage(rng, folder)
        read()

    shutil.copytree(whole, folder)
    read()
    fuzz.run(60, attempt)


@pytest.mark.parametrize("held", [None, 1])
def test_damaged_samples_of_a_run(tmp_path, fuzz, held):
    path, samples = tmp_path / "lessons.safetensors", [draw_sample(number) for number in (0, 2, 4)]
    latents = (torch.stack([getattr(sample, name) for sample in samples]) for name in ("target", "source"))
    texts = (tuple(getattr(sample, name) for sample in samples) for name in ("id", "prompt"))
    MemoryDataset(
        "control", EncodedSamples(*texts, *latents, torch.zeros(3, 2, WIDTH), torch.zeros(3, POOLED)), held
    ).save(path)
    read_all(load_dataset(path))
    whole = path.read_bytes()

    def attempt(rng):
        path.unlink()
        path.write_bytes(mutate_file(rng, whole))
        dataset = load_dataset(path)
        for index in range(len(dataset)):
            assert len(dataset.read_samples([index]).ids) == 1

    fuzz.run(60, attempt)
