"""`cologen train`: its words, its files, its signals, and two processes that are one."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.training.base.compile import compile_blocks
from cologen.training.cli import main as cli
from cologen.training.cli.train import AGAIN
from cologen.training.listener import Listener
from cologen.training.monitor.log import read_log
from cologen.training.monitor.samples import find_latest
from cologen.training.recipes.curriculum import load_curriculum
from cologen.training.recipes.read_recipe import read_tables
from cologen.training.setup import build_run
from pack import ROOT
from tiny_run import tiny_inputs, wait_for

RECIPE = """
base = "toy"
rank = 2
alpha = 4.0
resolution = 32
rate = 3e-3
router_rate = 3e-3
save_every = 3
validate_every = 4
sample_every = 4
sample_steps = 2
[[stages]]
name = "inpaint"
iterations = 4
batch = 4
rho = 1.0
[[stages]]
name = "ground"
iterations = 6
batch = 4
replay = 0.3
"""


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """The tiny world instead of the toy one; notes what it was asked for."""
    calls = []

    def opened(curriculum, out, device, seed, share, progress):
        calls.append(SimpleNamespace(curriculum=curriculum, out=out, device=device, seed=seed, share=share))
        progress("lessons", 1, 1)
        return tiny_inputs(curriculum, out, device, seed, share, progress)

    monkeypatch.setattr(build_run, "open_run_inputs", opened)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(RECIPE)
    return calls


def train(capsys, *words):
    code = cli.main(["train", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err.strip()


def test_a_recipe_becomes_a_bank_and_a_report(capsys, asked, tmp_path):
    code, said, _ = train(capsys, "mine.toml", "--device", "cpu")
    assert code == 0 and said[-2:] == ["out/train/mine/bank.safetensors", "out/train/mine/report.html"]
    out = tmp_path / "out/train/mine"
    assert list(Bank.open(out / "bank.safetensors").info.experts) == ["inpaint", "ground"]
    assert len([line for line in read_log(out / "log.jsonl") if "task" in line]) == 10
    assert find_latest(out, "ground").name == "2-ground-000000006.png"
    assert (out / "report.html").exists() and len(list((out / "tensorboard").iterdir())) == 2
    (call,) = asked
    assert (str(call.out), call.device, call.seed, call.share) == ("out/train/mine", "cpu", 0, 1.0)
    code, said, error = train(capsys, "mine.toml")
    assert code == 1 and error.endswith("is not empty: go on there with --resume, or choose another with --out.")
    before = (out / "bank.safetensors").read_bytes()
    assert train(capsys, "mine.toml", "--resume")[0] == 0
    assert (out / "bank.safetensors").read_bytes() == before


@pytest.mark.slow
def test_a_stage_alone_and_then_the_rest_from_its_bank(capsys, asked, tmp_path):
    assert train(capsys, "mine.toml", "--stage", "1", "--out", "a", "--seed", 5)[0] == 0
    first = Bank.open("a/bank.safetensors")
    assert list(first.info.experts) == ["inpaint"] and asked[0].seed == 5
    assert train(capsys, "mine.toml", "--out", "b", "--bank", "a/bank.safetensors", "--seed", 5)[0] == 0
    assert train(capsys, "mine.toml", "--out", "a", "--stage", "ground", "--seed", 5, "--resume")[0] == 0
    assert (tmp_path / "a/bank.safetensors").read_bytes() == (tmp_path / "b/bank.safetensors").read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ["mine.toml", "rate=2e-4", "ground.batch=8", "--stage", "1"],
        ["mine.toml", "rate=2e-4", "--stage", "1", "ground.batch=8"],
        ["--stage", "1", "mine.toml", "--budget", "full", "rate=2e-4", "--seed", "1", "ground.batch=8"],
    ],
)
def test_changes_may_stand_anywhere_and_are_as_good_as_lines_of_the_recipe(capsys, asked, words):
    code, _, error = train(capsys, *words)
    assert code == 0, error
    recipe = asked[0].curriculum
    assert recipe.settings.rate == 2e-4 and [stage.batch for stage in recipe.stages] == [4, 8]


def test_a_change_is_read_as_toml_and_words_need_no_quotes():
    changes = ["optimizer=prodigy", 'schedule="cosine"', "a.data=['x', 'y']", "micro=3", "toy.n=1", "base=a b"]
    data = read_tables('[[stages]]\nname = "a"\n', changes)
    stage = {"name": "a", "data": ["x", "y"]}
    expected = dict(optimizer="prodigy", schedule="cosine", micro=3, toy={"n": 1}, base="a b", stages=[stage])
    assert data == expected


def test_a_recipe_has_budgets_of_its_own_and_the_terminal_has_the_last_word(capsys, asked, tmp_path):
    table = '[budgets.large]\nrate = 5e-3\nmicro = 2\n"ground.batch" = 8\n'
    (tmp_path / "mine.toml").write_text(f"{RECIPE}\n{table}")
    code, _, error = train(capsys, "mine.toml", "--budget", "large", "rate=2e-4", "--stage", "1")
    assert code == 0, error
    recipe = asked[0].curriculum
    assert (recipe.settings.rate, recipe.settings.micro) == (2e-4, 2) and asked[0].share == 1
    assert [stage.batch for stage in recipe.stages] == [4, 8] and recipe.stages[0].iterations == 4
    plain = tmp_path / "plain.toml"
    plain.write_text(RECIPE)
    assert load_curriculum(tmp_path / "mine.toml") == load_curriculum(plain), "other budgets change nothing"


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--budget", "huge"], "there is no budget huge, expected one of tiny, small, full."),
        (["rate=fast"], "mine.toml cannot be used: the recipe.rate is 'fast', expected a number."),
        (["micro=2.5"], "the recipe.micro is '2.5', expected a whole number."),
        (["compile=1"], "the recipe.compile is '1', expected true or false."),
        (["rates=1"], "the recipe has an unknown entry 'rates'."),
        (["ground.batch=0"], "ground.batch is 0, expected 1 to 1e+06: set it within."),
        (["edit.batch=2"], "edit is no stage, expected one of inpaint, ground, toy, world, encoders or data.SET."),
        (["=3"], "'=3' is no change, expected setting=value or stage.field=value."),
        (["fast"], "'fast' is no change, expected setting=value or stage.field=value."),
        (["--stage", "3"], "There is no stage 3, expected one of inpaint, ground, or 1 to 2."),
        (["--device", "banana"], "banana cannot be used on this machine, expected cpu, cuda or cuda:N."),
        (["--bank", "no.safetensors"], "There is no file no.safetensors: check the name."),
        (["--out", "mine.toml"], "mine.toml is a file, expected a folder: choose another with --out."),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(capsys, asked, tmp_path, words, sentence):
    code, _, error = train(capsys, "mine.toml", *words)
    assert code == 1 and error.startswith("cologen: ") and error.endswith(sentence) and "\n" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_a_built_in_recipe_may_be_called_by_its_files_name(capsys, asked, tmp_path):
    assert load_curriculum("toy.toml") == load_curriculum("toy")
    (tmp_path / "toy.toml").write_text(RECIPE)
    assert [stage.name for stage in load_curriculum("toy.toml").stages] == ["inpaint", "ground"]
    changes = ["validate_every=0", "sample_every=0", "rank=2", *(f"{task}.batch=2" for task in ("inpaint", "ground"))]
    assert train(capsys, "toy", "--budget", "tiny", "--stage", "1", *changes, "inpaint.iterations=200")[0] == 0
    assert asked[0].share == 0.01 and asked[0].curriculum.stages[0].iterations == 2
    assert train(capsys, "nothing")[2] == (
        "cologen: There is no recipe nothing: give a TOML file or one of klein, paper, small, toy, world, subject."
    )


def test_unknown_words_are_refused_as_everywhere(asked, capsys):
    for words in (["train", "mine.toml", "--fast=3"], ["demo", "rate=3"]):
        with pytest.raises(SystemExit):
            cli.main(words)
        assert "unrecognized arguments" in capsys.readouterr().err


class Raise(Listener):
    def __init__(self, number, stage, iteration):
        self.number, self.where = number, (stage, iteration)

    def on_iteration(self, trainer, step):
        if (trainer.stage.name, trainer.iteration) == self.where:
            signal.raise_signal(self.number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_iteration_with_everything_saved(capsys, asked, tmp_path, monkeypatch, number):
    from cologen.training.cli import train as terminal

    usual, before = terminal.make_listeners, signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(terminal, "make_listeners", lambda *a: [*usual(*a), Raise(number, "ground", 2)])
        code, _, error = train(capsys, "mine.toml", "--out", "a")
    assert code == 128 + number and error == f"cologen: {AGAIN}"
    assert signal.getsignal(number) is before
    assert [path.stem for path in (tmp_path / "a/checkpoints").glob("2-*")] == ["2-ground-000000002"]
    assert (tmp_path / "a/report.html").exists()
    assert train(capsys, "mine.toml", "--out", "a", "--resume")[0] == 0
    assert train(capsys, "mine.toml", "--out", "b")[0] == 0
    assert (tmp_path / "a/bank.safetensors").read_bytes() == (tmp_path / "b/bank.safetensors").read_bytes()


def started(*words, launcher=()):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *launcher, str(ROOT / "tests/support/tiny_run.py"), "train", *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_terminated_process_goes_on_in_another_to_the_bit(capsys, asked, tmp_path):
    process = started("mine.toml", "--out", "a", "ground.iterations=400", "validate_every=0", "sample_every=0")
    try:
        wait_for(lambda: any(line["stage"] == "ground" for line in read_log(tmp_path / "a/log.jsonl")))
        process.terminate()
        out, error = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, error
    assert error.strip().splitlines()[-1] == f"cologen: {AGAIN}"
    assert "\ninpaint (1 of 2)  1/4  " in out  # no terminal: whole lines
    checkpoint = max((tmp_path / "a/checkpoints").glob("2-ground-*"))
    done = int(checkpoint.stem.rpartition("-")[2])
    assert 0 < done < 400 and max(line["iteration"] for line in read_log(tmp_path / "a/log.jsonl")) == max(done, 4)


@pytest.mark.slow
def test_two_processes_are_one_with_the_same_batch(capsys, asked, tmp_path):
    words = ["mine.toml", "inpaint.iterations=1", "ground.replay=0.5", "ground.iterations=4", "sample_every=0"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = started(*words, "--out", "two", launcher=launcher)
    try:
        out, error = process.communicate(timeout=3000)
    finally:
        process.terminate()  # torchrun ends its processes
    assert process.returncode == 0, error
    assert out.splitlines()[-2:] == ["two/bank.safetensors", "two/report.html"] and out.count("report.html") == 1
    assert train(capsys, *words, "--out", "one")[0] == 0
    one, two = (list(read_log(tmp_path / name / "log.jsonl")) for name in ("one", "two"))
    assert len(one) == len(two) == 7
    for ours, theirs in zip(one, two):
        for key in ("stage", "iteration", "task", "used", "veteran", "norm", "usage"):
            assert ours.get(key) == theirs.get(key) or ours[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-6)
    banks = [Bank.open(tmp_path / name / "bank.safetensors") for name in ("one", "two")]
    assert banks[0].info == banks[1].info
    for name, tensor in banks[0].tensors.items():
        assert torch.allclose(tensor, banks[1].tensors[name], atol=2e-5), name


def test_compile_is_for_the_frozen_blocks(capsys, asked, monkeypatch):
    compiled = []
    monkeypatch.setattr("cologen.training.base.placement.compile_blocks", lambda flux: compiled.append(flux))
    train(capsys, "mine.toml", "--stage", "1", "--out", "a")
    assert not compiled
    train(capsys, "mine.toml", "--stage", "1", "--out", "b", "compile=true")
    assert len(compiled) == 1 and len(compiled[0].single_blocks) == 2
    compile_blocks(compiled[0])
    assert all(block._compiled_call_impl for block in (*compiled[0].double_blocks, *compiled[0].single_blocks))
