"""A run does not depend on how many processes it has, nor on their number staying what it was."""

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.training.checkpoint.checkpoints import TrainingError
from cologen.training.monitor.log import read_log
from pack import ROOT
from tiny_run import tiny_curriculum, tiny_run

pytestmark = pytest.mark.slow

RECIPE = """
base = "toy"
rank = 2
alpha = 4.0
resolution = 32
rate = 3e-3
router_rate = 3e-3
ema = 0.9
save_every = 3
validate_every = 0
sample_every = 0
[[stages]]
name = "inpaint"
iterations = 8
batch = 4
rho = 1.0
[[stages]]
name = "ground"
iterations = 12
batch = 4
replay = 0.3
"""
HARD, SOFT = int(signal.SIGKILL), int(signal.SIGTERM)


@pytest.fixture
def train(tmp_path):
    """Calls `cologen train` with so many processes; gives its exit status and what it says of errors."""
    (tmp_path / "mine.toml").write_text(RECIPE)

    def call(out, processes=1, dies="", restarts=0, words=()):
        seen = tmp_path / f"seen-{out.partition('-')[0]}"
        seen.mkdir(exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "SEEN": str(seen)}
        environment |= {"DIES": dies} if dies else {}
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        launcher = [*torchrun, "--max-restarts", str(restarts)] if processes > 1 else []
        script = [
            str(ROOT / "tests/support/tiny_ranks.py"),
            "train",
            "mine.toml",
            "--device",
            "cpu",
            "--out",
            out,
            *words,
        ]
        command = [sys.executable, *launcher, *script]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        call.said = done.stdout
        return done.returncode, done.stderr

    return call


def seen(folder):
    """By start of the processes and iteration: how many took part, and the samples of all of them."""
    found = defaultdict(list)
    for file in folder.glob("*.jsonl"):
        for start, stage, iteration, rank, ids in map(json.loads, file.read_text().splitlines()):
            found[start, stage, iteration].append((rank, ids))
    return {
        key: (len({rank for rank, _ in parts}), sorted(id for _, ids in parts for id in ids))
        for key, parts in found.items()
    }


def test_two_processes_then_one_then_four_are_one_run(train, tmp_path):
    code, error = train("whole")
    assert code == 0, error
    code, error = train("parts", 2, dies=f"1 inpaint 5 {HARD}", words=["--resume"])
    assert code != 0 and [path.name for path in (tmp_path / "parts/checkpoints").iterdir()] == [
        "1-inpaint-000000003.safetensors"
    ], error
    code, error = train("parts", 1, dies=f"0 ground 1 {SOFT}", words=["--resume"])
    assert code == 128 + SOFT, error
    code, error = train("parts", 4, dies=f"2 ground 7 {HARD}", restarts=1, words=["--resume"])
    assert code == 0, error

    whole = {key[1:]: ids for key, (_, ids) in seen(tmp_path / "seen-whole").items()}
    assert len(whole) == 20 and all(len(ids) == 4 for ids in whole.values())
    parts = seen(tmp_path / "seen-parts")
    full = {key: ids for key, (_, ids) in parts.items() if len(ids) == 4}
    assert {key[1:] for key in full} == whole.keys()
    assert all(ids == whole[key[1:]] for key, ids in full.items())
    assert {count for count, ids in parts.values() if len(ids) == 4} == {1, 2, 4}
    again = sorted(key[1:] for key in full)
    assert {key for key in again if again.count(key) > 1} <= {("inpaint", i) for i in (3, 4, 5)} | {
        ("ground", i) for i in (6, 7)
    }

    one, other = (list(read_log(tmp_path / name / "log.jsonl")) for name in ("whole", "parts"))
    assert [(line["stage"], line["iteration"]) for line in one] == [(s["stage"], s["iteration"]) for s in other]
    for ours, theirs in zip(one, other):
        for key in ("task", "used", "veteran", "norm"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-6), (ours["stage"], ours["iteration"], key)
    banks = [Bank.open(tmp_path / name / "bank.safetensors") for name in ("whole", "parts")]
    assert banks[0].info == banks[1].info
    for name, tensor in banks[0].tensors.items():
        assert torch.allclose(tensor, banks[1].tensors[name], atol=2e-5), name


def test_two_processes_decide_a_stages_length_as_one_does(train, tmp_path):
    words = ["--resume", "inpaint.iterations=auto", "inpaint.ceiling=40", "ground.iterations=auto", "ground.ceiling=24"]
    words += ["check_every=2", "standstill=2", "tolerance=0.02", "usage_band=1.0", "ahead=true", "schedule=cosine"]
    code, error = train("whole", words=words)
    assert code == 0, error
    code, error = train("parts", 2, dies=f"1 ground 5 {HARD}", words=words)
    assert code != 0, error
    code, error = train("parts", 2, words=words)
    assert code == 0, error
    one, other = (
        [line for line in read_log(tmp_path / name / "log.jsonl") if "length" in line] for name in ("whole", "parts")
    )
    decided = [(line["stage"], line["iteration"], line["length"]["verdict"], line["length"]["end"]) for line in one]
    assert decided == [(s["stage"], s["iteration"], s["length"]["verdict"], s["length"]["end"]) for s in other]
    assert {verdict for _, _, verdict, _ in decided} >= {"goes on", "stood still"}
    banks = [Bank.open(tmp_path / name / "bank.safetensors") for name in ("whole", "parts")]
    assert banks[0].info == banks[1].info


@pytest.mark.parametrize("compiled", [(), pytest.param(("compile=true",), marks=pytest.mark.long)])
def test_processes_that_share_the_base_do_what_they_do_with_one_each(train, tmp_path, compiled):
    """To the bit, also where one has more passes than the other (replay), and whatever the blocks do besides."""
    shown = ["sample_every=4", "sample_steps=2", "validate_every=4", "--resume"]
    code, error = train("each", 2, words=shown)
    assert code == 0 and "a block's turn" not in train.said, error
    code, error = train("shared", 2, dies=f"1 ground 5 {SOFT}", words=[*shown, "shard=true"])
    assert code != 0 and "a block's turn" in train.said, error
    code, error = train("shared", 2, words=[*shown, "shard=true", "checkpointing=true", *compiled])
    assert code == 0, error
    parts = seen(tmp_path / "seen-shared")
    assert {count for count, _ in parts.values()} == {2}
    one, other = (list(read_log(tmp_path / name / "log.jsonl")) for name in ("each", "shared"))
    assert [{**line, "seconds": 0} for line in one] == [{**line, "seconds": 0} for line in other]
    banks = [Bank.open(tmp_path / name / "bank.safetensors") for name in ("each", "shared")]
    assert banks[0].info == banks[1].info
    assert all(torch.equal(tensor, banks[1].tensors[name]) for name, tensor in banks[0].tensors.items())
    pictures = [sorted((tmp_path / name / "samples").iterdir()) for name in ("each", "shared")]
    assert len(pictures[0]) == 5
    assert [path.read_bytes() for path in pictures[0]] == [path.read_bytes() for path in pictures[1]]


def test_processes_that_do_not_share_a_folder_are_told_so(train, tmp_path):
    code, error = train("apart-RANK", 2)
    assert code != 0
    assert "apart-1 of process 1 is not the folder that process 0 writes to: give all nodes one shared folder" in error


def test_a_stage_whose_passes_differ_by_lesson_cannot_share_the_base(tmp_path, monkeypatch):
    curriculum = tiny_curriculum(stages=("inpaint",), rho=1.0, shard=True)
    curriculum = replace(curriculum, stages=(replace(curriculum.stages[0], features="self"),))
    monkeypatch.setattr("cologen.training.distributed.ranks.is_sharded", lambda settings: settings.shard)
    with pytest.raises(TrainingError, match='set shard = false, or features = "coredi"'):
        tiny_run(tmp_path, curriculum).train()
