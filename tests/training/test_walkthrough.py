"""What docs/data.md, docs/scale.md and docs/evaluation.md walk a reader through, one after another in a new folder:
look at five sets, encode them, train five stages on them, measure. Two processes, killed on the way; then others go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import layouts
import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.training.data.encoded.cached import open_shard
from tiny_run import wait_for

SETS = {
    "inpaint": "ade20k",
    "ground": "refcoco",
    "control": "multigen-20m-depth",
    "subject": "subjects200k",
    "edit": "magicbrush",
}
HEAD = """
base = "toy"
rank = 2
alpha = 4.0
resolution = 64
save_every = 1
validate_every = 0
sample_every = 0
"""
STAGE = """
[[stages]]
name = "{stage}"
data = ["{data}"]
iterations = 3
batch = 2
[data.{data}]
path = "sets/{data}"
cache = "cache"
"""
COLOGEN = ("-m", "cologen.training")
SEVERAL = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture
def walk(tmp_path):
    for data in SETS.values():
        layouts.LAYOUTS[data][0](tmp_path / "sets" / data)
    (tmp_path / "walk.toml").write_text(HEAD + "".join(STAGE.format(stage=s, data=d) for s, d in SETS.items()))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return Walk(tmp_path, environment)


class Walk:
    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder, self.environment = folder, environment

    def start(self, *words: str, several: bool = False) -> subprocess.Popen:
        command = [sys.executable, *(SEVERAL if several else ()), *COLOGEN, *words, "--device", "cpu"]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def done(self, *words: str, several: bool = False) -> str:
        process = self.start(*words, several=several)
        said, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
        return said

    def killed(self, pattern: str, *words: str) -> None:
        """Two processes, killed as soon as there is such a file."""
        process = self.start(*words, several=True)
        wait_for(lambda: process.poll() is not None or list(self.folder.glob(pattern)), 300)
        assert process.poll() is None, process.communicate()[1]
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def files(self, pattern: str) -> dict[str, bytes]:
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in self.folder.glob(pattern)}


@pytest.mark.long
@pytest.mark.slow
def test_from_five_sets_to_a_measured_bank(walk):
    sheets = subprocess.run(
        [sys.executable, *COLOGEN, "data", "check", "walk.toml"],
        cwd=walk.folder, env=walk.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert sheets.returncode == 0, sheets.stdout + sheets.stderr
    assert sheets.stdout.splitlines()[-5:] == [f"out/data/walk/{stage}.png" for stage in SETS]

    walk.killed("cache/*/*.safetensors", "data", "cache", "walk.toml")
    said = walk.done("data", "cache", "walk.toml", several=True)
    assert said.splitlines()[-5:] == [f"cache/{s}-{d}" for s, d in SETS.items()]
    for stage, data in SETS.items():
        ids = [
            id for path in (walk.folder / f"cache/{stage}-{data}").glob("0*.safetensors") for id in open_shard(path).ids
        ]
        assert 2 <= len(ids) == len(set(ids))

    train = ("train", "walk.toml", "--out")
    walk.done(*train, "whole")
    walk.killed("parts/stages/1-*", *train, "parts")
    walk.done(*train, "parts", "--resume")
    whole, parts = (Bank.open(walk.folder / name / "bank.safetensors") for name in ("whole", "parts"))
    assert list(whole.info.experts) == list(SETS) and parts.info == whole.info
    for name, tensor in whole.tensors.items():
        assert torch.allclose(parts.tensors[name], tensor, atol=1e-5), name

    measure = ("eval", "magicbrush", "--cases", "3", "--steps", "1", "--bank", "whole/bank.safetensors", "--out")
    walk.done(*measure, "all")
    walk.killed("some/**/*.png", *measure, "some")
    assert "L1 to the source" in walk.done(*measure, "some")
    drawn = {name.removeprefix("all/"): data for name, data in walk.files("all/**/*.png").items()}
    assert len(drawn) == 3
    assert {name.removeprefix("some/"): data for name, data in walk.files("some/**/*.png").items()} == drawn
    assert (walk.folder / "some/report.html").exists()
