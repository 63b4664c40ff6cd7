"""Encoded samples on disk: the same as in memory, whole after any kill, each once, and readable while they grow."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from zlib import crc32

import layouts
import numpy as np
import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.prw.files import atomic_write as whole
from cologen.training.checkpoint.checkpoints import TrainingError
from cologen.training.cli import main as cli
from cologen.training.data.batch_sampler import sample_indices
from cologen.training.data.buckets import list_sizes, pick_size
from cologen.training.data.encoded.cache_index import read_all_entries
from cologen.training.data.encoded.cache_writer import CacheSettings, CacheWriter
from cologen.training.data.encoded.cached import CachedDataset, JoinedDataset, open_cached, open_shard
from cologen.training.data.encoded.dataset import MemoryDataset
from cologen.training.data.encoded.encode import encode_dataset
from cologen.training.data.encoded.estimate_cache import check_free, estimate_cache
from cologen.training.data.encoded.samples import EncodedSamples
from cologen.training.data.sets import open_dataset
from cologen.training.data.tasks.examples import ExampleStream
from cologen.training.from_scratch.store import open_encoders
from cologen.training.recipes.curriculum import Stage, load_curriculum
from cologen.training.setup.stage_data import StageDatasets, plan_stage_data
from cologen.training.toy.store import TOY
from cologen.training.validate import make_val_batch
from pack import ROOT
from safetensors.torch import load_file
from tiny_run import TinyEncoders, tiny_curriculum, tiny_host, tiny_run, tiny_trainer

LEAST = 6
"""Tokens to which the encoders below pads."""


class ExactEncoders(TinyEncoders):
    """Every number of it is exact in bf16, and none depends on what else is encoded with it."""

    def encode(self, pictures):
        grey = torch.from_numpy(np.stack(pictures)[:, ::8, ::8, 0].copy()).float() / 64
        return grey[:, None].expand(-1, 16, -1, -1).contiguous()

    def encode_prompts(self, prompts):
        told = [prompt.split() for prompt in prompts]
        context = torch.zeros(len(prompts), max(LEAST, *(len(words) + 1 for words in told)), 8)
        for row, words in zip(context, told):
            row[:LEAST] = torch.arange(LEAST)[:, None] / 8  # of padding, which does not depend on the prompt
            for j, word in enumerate([*words, "</s>"]):
                row[j] = torch.tensor([crc32(f"{word}{i}".encode()) % 32 / 16 for i in range(8)])
        pooled = torch.tensor([[crc32(f"{prompt}{i}".encode()) % 997 / 997 for i in range(4)] for prompt in prompts])
        return context, pooled

    def count_tokens(self, prompts):
        return [len(prompt.split()) + 1 for prompt in prompts]

    def identity(self):
        return "exact"


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records(tmp_path / "mine", 13)
    return tmp_path


def records(root, count, sizes=((48, 64),)):
    lines = []
    for i in range(count):
        layouts.write_file(
            root / f"{i}.png", layouts.encode_picture(layouts.draw_picture(i, sizes[i % len(sizes)]), "PNG")
        )
        lines.append({"id": f"line-{i}", "picture": f"{i}.png", "caption": " ".join(["word"] * (i % 9)) + f" {i}"})
    layouts.write_file(root / "train.jsonl", "\n".join(map(json.dumps, lines)).encode())


def source(path="mine", **knobs):
    return open_dataset("mine", {"set": "json-lines", "path": str(path), **knobs})


def cached(out="cache", knobs=None, task="inpaint", size=32, path="mine", shard=4, trim=True, **process) -> CacheWriter:
    settings = CacheSettings(size, 7, shard, trim)
    found = CacheWriter(source(path, **(knobs or {})), task, ExactEncoders(), out, settings, **process)
    found.begin()
    return found


def filled(*args, **options) -> CacheWriter:
    found = cached(*args, **options)
    list(found.fill())
    return found


def opened(cache: CacheWriter, note) -> JoinedDataset:
    return JoinedDataset(
        [open_cached(cache.folder, cache.task, note, {"encoders": "exact", "size": cache.settings.size})]
    )


def files(folder) -> dict:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def shards(folder) -> dict:
    return {name: data for name, data in files(folder).items() if name.endswith(".safetensors")}


def in_memory(task="inpaint", size=32, **knobs) -> MemoryDataset:
    return encode_dataset(ExactEncoders(), task, ExampleStream(source(**knobs), task, size, 7).take(0))


def same(ours: EncodedSamples, theirs: EncodedSamples) -> bool:
    tensors = ("target", "source", "context", "pooled")
    texts = (ours.ids, ours.prompts) == (theirs.ids, theirs.prompts)
    return texts and all(torch.equal(getattr(ours, n).float(), getattr(theirs, n).float()) for n in tensors)


@pytest.mark.slow
@pytest.mark.parametrize("trim", [True, False])
def test_training_from_a_cache_is_training_from_memory_bit_for_bit(there, trim):
    memory, cache = in_memory(), filled(trim=trim)
    dataset = opened(cache, there / "note.json")
    assert len(dataset) == len(memory) == 13 and (dataset.train_count, dataset.buckets) == (
        memory.train_count,
        (memory.train_count,),
    )
    assert len(shards(cache.folder)) == 4 + 1 and same(dataset.read_samples(range(13)), memory.samples)
    assert same(dataset.read_samples([11, 2, 2, 7]), memory.read_samples([11, 2, 2, 7]))
    recipe = tiny_curriculum(6, ("inpaint",), batch=3, text_drop=0.3, validate_every=2, micro=2)
    banks = []
    for name, data in (("memory", memory), ("cache", dataset)):
        tiny_run(there / name, recipe, datasets={"inpaint": data}).train()
        banks.append((there / name / "bank.safetensors").read_bytes())
    assert banks[0] == banks[1]
    tiny_run(there / "other", recipe, datasets={"inpaint": dataset}, seed=8).train()
    assert (there / "other/bank.safetensors").read_bytes() != banks[0]


def test_features_are_of_pictures_in_memory(there):
    recipe = tiny_curriculum(2, ("inpaint",))
    recipe = replace(recipe, stages=(replace(recipe.stages[0], features="auxiliary"),))
    dataset = opened(filled(), there / "note.json")
    with pytest.raises(TrainingError, match="inpaint learns features of pictures that lie in a cache, expected them"):
        tiny_run(there / "run", recipe, datasets={"inpaint": dataset}).train()


def test_the_shards_are_smaller_without_padding_and_hold_each_prompts_own_tokens(there):
    trimmed, padded = (filled(f"cache-{trim}", trim=trim) for trim in (True, False))
    assert [entry.tokens for entry in read_all_entries(trimmed.folder)] == [5, 9, 10, 5]
    assert [entry.tokens for entry in read_all_entries(padded.folder)] == [LEAST, 9, 10, LEAST]
    sizes = [sum(map(len, shards(cache.folder).values())) for cache in (trimmed, padded)]
    assert sizes[0] < sizes[1]


@pytest.mark.slow
def test_a_kill_at_any_write_and_another_go_leave_the_same_bytes(there):
    expected = files(filled("whole").folder)
    assert sum(name.endswith(".safetensors") for name in expected) == 5
    for moment in range(1, 9):
        for late in (False, True):
            cache = cached(f"{moment}-{late}")
            assert killed(cache, moment, late) == signal.SIGKILL
            list(cached(f"{moment}-{late}").fill())
            found = files(cache.folder)
            assert found.keys() == expected.keys() and shards(cache.folder) == shards(there / "whole/inpaint-mine")


def killed(cache: CacheWriter, moment: int, late: bool) -> int:
    """Fills it in a process that a signal ends as it puts its `moment`-th file into place, or right afterwards."""
    child = os.fork()
    if not child:
        calls, put = [], os.replace

        def replace_and_die(*paths):
            calls.append(paths)
            if late or len(calls) < moment:
                put(*paths)
            if len(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        whole.os.replace = replace_and_die
        try:
            list(cache.fill())
        finally:
            os._exit(1)
    return -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_what_is_complete_is_left_alone_and_more_is_added_behind_it(there):
    cache = filled(knobs=dict(examples=6))
    before = files(cache.folder)
    assert list(cached(knobs=dict(examples=6)).fill()) == [] and files(cache.folder) == before
    list(cached(knobs=dict(variants=2)).fill())
    after = files(cache.folder)
    assert all(after[name] == before[name] for name in before if name != "000.json")
    ids = Counter(id for entry in read_all_entries(cache.folder) for id in open_shard(cache.folder / entry.file).ids)
    assert set(ids.values()) == {2} and len(ids) == 13


@pytest.mark.parametrize("files_of_lines", [1, 5])
def test_two_processes_together_hold_each_sample_once(there, files_of_lines):
    lines = (there / "mine/train.jsonl").read_text().splitlines()
    (there / "mine/train.jsonl").unlink()
    for i in range(files_of_lines):
        (there / f"mine/{i}.jsonl").write_text("\n".join(lines[i::files_of_lines]))
    one, two = (filled(rank=rank, world=2) for rank in (0, 1))
    dataset = opened(one, there / "note")
    assert sorted(dataset.read_samples(range(13)).ids) == sorted(f"line-{i}" for i in range(13))
    assert {name[:3] for name in shards(two.folder)} == {"000", "001", "emp"}
    with pytest.raises(ValueError, match="other models or settings .processes: 2 there, 1 here.: cache into another"):
        cached()


def test_a_growing_cache_serves_and_a_run_keeps_what_it_began_with(there):
    cache = cached()
    growing = cache.fill()
    with pytest.raises(ValueError, match="holds 0 samples yet, expected two or more: wait for a shard"):
        opened(cache, there / "early")
    while len(read_all_entries(cache.folder)) < 2:
        next(growing)
    first = opened(cache, there / "note")
    found, memory = first.read_samples(range(8)), in_memory().read_samples(range(8))
    assert len(first) == 8 and found.ids == memory.ids and torch.equal(found.source, memory.source)
    list(growing)
    again, fresh = opened(cache, there / "note"), opened(cache, there / "other")
    assert len(again) == 8 and len(fresh) == 13
    assert same(again.read_samples(range(8)), first.read_samples(range(8)))


def test_a_torn_shard_is_a_sentence_and_made_again(there):
    cache = filled()
    expected = shards(cache.folder)
    victim = cache.folder / "000-000001.safetensors"
    victim.write_bytes(victim.read_bytes()[:-100])
    with pytest.raises(ValueError, match="000-000001.safetensors in .* is missing or torn .1 in all.: give the same"):
        opened(cache, there / "note")
    victim.unlink()
    with pytest.raises(ValueError, match="is missing or torn"):
        opened(cache, there / "note")
    list(cached().fill())
    assert shards(cache.folder) == expected
    damaged = bytearray(victim.read_bytes())
    damaged[8:40] = bytes(32)
    victim.write_bytes(damaged)
    dataset = opened(cache, there / "note")
    with pytest.raises(ValueError, match="The shard .*000-000001.safetensors is torn .*: delete it, and give the same"):
        dataset.read_samples(range(len(dataset)))
    last = cache.folder / "000-000003.safetensors"
    last.unlink()
    victim.unlink()
    list(cached(knobs=dict(variants=2)).fill())
    assert {name: data for name, data in shards(cache.folder).items() if name in expected} == expected


def test_variants_are_looks_of_their_own(there, monkeypatch):
    dataset = opened(filled(knobs=dict(variants=3)), there / "note")
    monkeypatch.setattr(CachedDataset, "_avoid_val", lambda self, shard, row, *_: row)
    rows = dataset.read_samples(range(39))
    mine = [i for i, id in enumerate(rows.ids) if id == "line-4"]
    assert len(mine) == 3 and not torch.equal(rows.source[mine[0]], rows.source[mine[1]])
    memory = in_memory(variants=3).samples  # which holds out whole pictures
    looks = looked(rows.ids)
    assert same(rows.rows([looks.index(look) for look in looked(memory.ids)]), memory)


def test_no_look_at_a_picture_that_is_held_out_teaches(there):
    dataset = opened(filled(knobs=dict(variants=3)), there / "note")
    held = set(dataset.read_samples(range(dataset.train_count, len(dataset))).ids)
    taught = dataset.read_samples(range(dataset.train_count)).ids
    assert held and not held & set(taught) and len(set(taught)) == 13 - len(held)


@pytest.mark.parametrize("is_cached", [True, False])
def test_what_one_set_holds_out_no_other_set_teaches(there, is_cached):
    records(there / "others", 30)  # the same names: the last of "mine" is in the middle here
    parts = [
        open_cached(filled("a", path="others").folder, "inpaint", there / "a.json", {"encoders": "exact"}),
        open_cached(filled("b").folder, "inpaint", there / "b.json", {"encoders": "exact"})
        if is_cached
        else in_memory(),
    ]
    val_ids = set().union(*(part.val_ids for part in parts))
    assert "line-12" in parts[1].val_ids and any("line-12" in part.read_samples(range(26)).ids for part in parts[:1])
    dataset = JoinedDataset(parts)
    taught = {id for index in range(dataset.train_count) for id in dataset.read_samples([index]).ids}
    assert taught and not taught & val_ids
    held = {id for index in range(dataset.train_count, len(dataset)) for id in dataset.read_samples([index]).ids}
    assert held == val_ids


def looked(ids):
    """Each id with the number of its look."""
    return [(id, ids[:i].count(id)) for i, id in enumerate(ids)]


def test_a_cache_from_before_the_usual_kinds_changed_goes_on_with_what_it_has(there):
    old, new = dict(kinds=["box", "mask", "detect"]), dict(kinds=["box", "mask", "instance"])
    cache = cached(task="ground")
    about = json.loads((cache.folder / "cache.json").read_text())
    assert about.pop("kinds") == new["kinds"] and "kinds" not in about["set"][1]
    with pytest.raises(ValueError, match="kinds: .'box', 'mask', 'instance'. there, None here"):
        cached(task="ground", knobs=old)
    (cache.folder / "cache.json").write_text(json.dumps(about))  # as it was written then
    with pytest.raises(ValueError, match="kinds: None there, .'box', 'mask', 'instance'. here.: cache into another"):
        cached(task="ground")
    assert cached(task="ground", knobs=old).folder == cache.folder


def test_other_models_or_settings_are_a_sentence(there):
    cache = filled()
    with pytest.raises(ValueError, match=r"other models or settings \(size: 32 there, 16 here\)"):
        cached(size=16)
    with pytest.raises(ValueError, match="other models or settings .set: "):
        cached(knobs=dict(flip=0.5))
    for name, theirs, mine in (("encoders", "exact", "toy"), ("size", 32, 64)):
        with pytest.raises(
            ValueError, match=f"{name}: {theirs} there, {mine} here.: train with the models and the size"
        ):
            open_cached(cache.folder, "inpaint", there / "note", {name: mine})
    with pytest.raises(ValueError, match="There is no cache in nowhere: make it with cologen data cache"):
        open_cached(there.relative_to(there) / "nowhere", "inpaint", there / "note", {})


def test_a_run_does_not_go_on_with_a_cache_that_was_made_anew_otherwise(there):
    cache = filled()
    before = opened(cache, there / "note.json").read_samples(range(13))
    assert same(opened(cache, there / "note.json").read_samples(range(13)), before)
    shutil.rmtree(cache.folder)
    again = filled(knobs=dict(flip=0.5))
    with pytest.raises(
        ValueError, match="holds a run on samples that were made otherwise .set: .*: cache them as they"
    ):
        opened(again, there / "note.json")


def test_the_size_is_known_beforehand_and_a_disk_that_is_too_small_is_a_sentence(there, monkeypatch):
    for trim in (True, False):
        cache = filled(f"{trim}", trim=trim)
        found = estimate_cache(cached(f"{trim}", trim=trim), 0)
        paths = cache.folder.glob("000-*.safetensors")
        written = sum(tensor.nbytes for path in paths for tensor in load_file(path).values())
        # without trimming the empty prompt stands for all: longer ones are not foreseen
        assert found.sample * 13 == pytest.approx(written, rel=1e-6 if trim else 0.2)
    assert "GiB for 100 000" in str(found)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    with pytest.raises(
        OSError, match="4.7 GiB are still to be written, the disk of .*/new has 0.9 GiB left: make room"
    ):
        check_free(there / "new", 5e9)
    with pytest.raises(OSError, match="has 0.9 GiB left, too little for the next shard: make room, and give the same"):
        filled("more")


def test_sizes_have_the_area_and_the_aspect_that_are_asked():
    assert list_sizes(512) == [(512, 512)] and list_sizes(40) == [(40, 40)]
    for resolution, aspect in ((512, 2.0), (768, 2.5), (1024, 1.5)):
        found = list_sizes(resolution, aspect)
        assert len(found) == len(set(found)) > 4 and {(w, h) for h, w in found} == set(found)
        for height, width in found:
            assert height * width <= resolution**2 < 1.5 * height * width
            assert max(height, width) <= aspect * min(height, width) and height % 64 == width % 64 == 0
    rng = np.random.default_rng(0)
    groups = [list_sizes(512, 2.0), list_sizes(1024, 2.0)]
    assert pick_size(rng, (300, 400), groups) == (448, 576) and pick_size(rng, (600, 300), groups) == (640, 384)
    assert {pick_size(rng, (2000, 2000), groups) for _ in range(20)} == {(512, 512), (1024, 1024)}
    assert {pick_size(rng, (800, 800), groups) for _ in range(20)} == {(512, 512)}


def test_an_iteration_is_of_one_bucket_and_an_epoch_sees_all(there):
    records(there / "wide", 60, ((128, 128), (64, 256), (256, 64), (128, 140)))
    cache = filled("wide-cache", knobs=dict(aspect=4.0), size=128, path="wide", shard=16)
    dataset = opened(cache, there / "note")
    shapes = Counter(tuple(dataset.read_samples([i]).target.shape[2:]) for i in range(60))
    assert shapes == {(16, 16): 30, (8, 32): 15, (32, 8): 15} and len(dataset.buckets) == 3
    assert sum(dataset.buckets) == dataset.train_count == 54
    stage = Stage(name="inpaint", iterations=100, batch=4)
    for epochs in (1, 2, 5):
        count = epochs * 54 // 4
        seen = [sample_indices(7, 0, k, stage, {"inpaint": 54}, dataset.buckets) for k in range(count + 1)]
        indices = [slot.index for batch in seen for slot in batch]
        for epoch in range(epochs):
            assert sorted(indices[54 * epoch : 54 * epoch + 54]) == list(range(54))
        mixed = sum(len({dataset.find_bucket(slot.index) for slot in batch}) > 1 for batch in seen)
        assert mixed <= 4 * epochs
    trainer = tiny_trainer(tiny_host(), stage=0, stages=("inpaint",), batch=4, iterations=14)
    trainer.datasets = {"inpaint": dataset}
    for _ in range(14):
        assert all(tuple(batch.target.shape[2:]) in shapes for batch in trainer.draw_batches())
        assert trainer.train_iteration() is not None
    assert len({tuple(row.shape) for row in make_val_batch(dataset).target}) == 1
    with pytest.raises(ValueError, match="data.mine asks for several sizes, which lie in a cache alone"):
        curriculum = curriculum_with(there, "resolutions = [64, 128]")
        StageDatasets(plan_stage_data(curriculum, 4, ExactEncoders(), 7), there / "lessons", lambda *_: None)["inpaint"]


def curriculum_with(there, *lines):
    (there / "r.toml").write_text(RECIPE + "\n".join(lines))
    return load_curriculum(there / "r.toml")


RECIPE = """
base = "toy"
rank = 2
alpha = 4.0
resolution = 64
sample_every = 0
validate_every = 0
[[stages]]
name = "inpaint"
data = ["mine"]
iterations = 2
batch = 2
rho = 1.0
[data.mine]
set = "json-lines"
path = "mine"
"""
SECOND = """
cache = "cache"
[[stages]]
name = "more"
task = "inpaint"
data = ["other", "mine"]
iterations = 2
batch = 2
replay = 0.5
[data.other]
set = "json-lines"
path = "other"
"""


@pytest.mark.slow
def test_check_cache_train(there, capsys):
    """What docs/data.md walks through, with a second stage of the task on other data, part of it in memory."""
    records(there / "other", 5)
    (there / "r.toml").write_text(RECIPE + SECOND)
    words = ["r.toml", "data.other.cache=cache", "--device", "cpu"]
    assert cli.main(["data", "cache", *words]) == 0
    said = capsys.readouterr().out
    assert "MiB a sample" in said and said.endswith("cache/inpaint-mine\ncache/inpaint-other\n")
    assert cli.main(["train", "r.toml", "--device", "cpu", "--out", "half"]) == 0, capsys.readouterr().err
    assert cli.main(["train", *words, "--out", "out"]) == 0, capsys.readouterr().err
    assert list(Bank.open("out/bank.safetensors").info.experts) == ["inpaint", "more"]
    assert sorted(path.name for path in (there / "out/lessons").iterdir()) == [
        "inpaint-mine-cached-of.json",
        "inpaint-mine-cached.json",
        "inpaint-other-cached-of.json",
        "inpaint-other-cached.json",
    ]
    curriculum = load_curriculum("r.toml", ["data.other.cache=cache"])
    kept = StageDatasets(plan_stage_data(curriculum, 4, open_encoders(TOY), 0), there / "out/lessons", lambda *_: None)
    assert (len(kept["inpaint"]), len(kept["more"])) == (13, 18)
    assert set(kept["more"].read_samples(range(18)).ids) == {f"line-{i}" for i in range(13)}
    rounded = encode_dataset(open_encoders(TOY), "inpaint", ExampleStream(source(), "inpaint", 64, 0).take(0)).samples
    changed = {name: getattr(rounded, name).bfloat16().float() for name in ("target", "source", "context")}
    assert same(kept["inpaint"].read_samples(range(13)), replace(rounded, **changed))
    assert cli.main(["data", "cache", "toy", "--out", "x"]) == 1
    assert "set toy.rebuild=false" in capsys.readouterr().err
    assert cli.main(["data", "cache", "r.toml", "--device", "cpu"]) == 1
    assert (
        "The table data.other names no cache, expected a folder: set it, or give --out FOLDER."
        in capsys.readouterr().err
    )


def test_a_later_stage_s_cache_may_come_later(there, capsys):
    records(there / "other", 5)
    (there / "r.toml").write_text(RECIPE + SECOND)
    words = ["r.toml", "data.other.cache=cache", "--device", "cpu"]
    assert cli.main(["data", "cache", *words]) == 0
    os.rename("cache/inpaint-other", "elsewhere")
    assert cli.main(["train", *words, "--out", "out"]) == 1
    assert "There is no cache in cache/inpaint-other: make it with cologen data cache" in capsys.readouterr().err
    assert [path.name for path in (there / "out/stages").iterdir()] == ["1-inpaint.safetensors"]
    os.rename("elsewhere", "cache/inpaint-other")
    assert cli.main(["train", *words, "--out", "out", "--resume"]) == 0, capsys.readouterr().err
    assert list(Bank.open("out/bank.safetensors").info.experts) == ["inpaint", "more"]


@pytest.mark.slow
def test_torchrun_shares_the_work(there):
    (there / "r.toml").write_text(RECIPE)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [
        *launcher,
        str(ROOT / "tests/support/tiny_run.py"),
        "data",
        "cache",
        "r.toml",
        "--out",
        "c",
        "--device",
        "cpu",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "c/inpaint-mine" and done.stdout.count("MiB a sample") == 1
    ids = [id for path in (there / "c/inpaint-mine").glob("00?-*.safetensors") for id in open_shard(path).ids]
    assert sorted(ids) == sorted(f"line-{i}" for i in range(13))
