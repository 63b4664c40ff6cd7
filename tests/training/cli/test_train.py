"""`cologen train`: its words, its files, its signals, and two processes that are one."""

import html.parser
import json
import math
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.training.base.compile import compile_blocks
from cologen.training.cli import main as cli
from cologen.training.cli.train import AGAIN
from cologen.training.listener import Listener
from cologen.training.monitor.history import History
from cologen.training.monitor.log import read_log
from cologen.training.monitor.plots import LEFT, TOP, Curve, draw_chart, format_number, place_ticks
from cologen.training.monitor.report import write_report
from cologen.training.monitor.route_map import COLOURS
from cologen.training.monitor.samples import Samples, find_latest
from cologen.training.monitor.tensorboard import TensorBoard
from cologen.training.monitor.terminal import ProgressLine, Terminal
from cologen.training.recipes.curriculum import load_curriculum
from cologen.training.recipes.read_recipe import read_tables
from cologen.training.setup import build_run
from pack import ROOT
from PIL import Image
from tiny_run import tiny_curriculum, tiny_inputs, tiny_run, tiny_trainer, wait_for

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


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["rate=fast"], "mine.toml cannot be used: the recipe.rate is 'fast', expected a number."),
        (["micro=2.5"], "the recipe.micro is '2.5', expected a whole number."),
        (["compile=1"], "the recipe.compile is '1', expected true or false."),
        (["rates=1"], "the recipe has an unknown entry 'rates'."),
        (["ground.batch=0"], "ground.batch is 0, expected 1 to 1e+06: set it within."),
        (["edit.batch=2"], "edit is no stage, expected one of inpaint, ground, toy, encoders or data.SET."),
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
        "cologen: There is no recipe nothing: give a TOML file or one of paper, small, toy, subject."
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
    assert [path.name for path in (tmp_path / "a/checkpoints").iterdir()] == ["2-ground-000000002.safetensors"]
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
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, error
    assert error.strip().splitlines()[-1] == f"cologen: {AGAIN}"
    assert "\ninpaint (1 of 2)  1/4  " in out  # no terminal: whole lines
    (checkpoint,) = [path for path in (tmp_path / "a/checkpoints").iterdir()][-1:]
    done = int(checkpoint.stem.rpartition("-")[2])
    assert 0 < done < 400 and max(line["iteration"] for line in read_log(tmp_path / "a/log.jsonl")) == max(done, 4)


@pytest.mark.slow
def test_two_processes_are_one_with_the_same_batch(capsys, asked, tmp_path):
    words = ["mine.toml", "inpaint.iterations=1", "ground.replay=0.5", "ground.iterations=4", "sample_every=0"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = started(*words, "--out", "two", launcher=launcher)
    try:
        out, error = process.communicate(timeout=600)
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


class Screen:
    """What a terminal has been sent."""

    def __init__(self, live):
        self.live, self.text = live, ""

    def isatty(self):
        return self.live

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def told(live, seconds):
    """What a terminal shows of a stage of ten iterations that take so long each."""
    screen, clock = Screen(live), SimpleNamespace(now=0.0)
    terminal = Terminal(tiny_curriculum(10).stages, ProgressLine(screen, lambda: clock.now))
    trainer = SimpleNamespace(
        stage=tiny_curriculum(10).stages[1],
        columns=("inpaint", "ground"),
        iteration=0,
        missed=0,
    )
    terminal.on_stage_begin(trainer)
    for trainer.iteration in range(1, 11):
        clock.now += seconds
        trainer.finished, trainer.missed = trainer.iteration == 10, trainer.iteration // 5
        terminal.on_iteration(trainer, SimpleNamespace(task=float(trainer.iteration), usage=(0.25, 0.75)))
    terminal.on_stage_end(trainer.stage, None)
    return screen.text


def test_a_terminal_sees_one_line_that_changes(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = told(True, 30.0).replace("\x1b[K", "").split("\r")[1:]
    assert shown[0] == "ground (2 of 3)  1/10  0:04:30 left  loss 1.0000  usage inpaint 25% ground 75%"
    weights = [0.98**age for age in range(4, -1, -1)]
    mean = sum(weight * loss for weight, loss in zip(weights, range(1, 6))) / sum(weights)
    assert shown[4].startswith("ground (2 of 3)  5/10  0:02:30 left  ") and f"loss {mean:.4f}" in shown[4]
    assert shown[4].endswith("  1 did not fit into memory")
    assert len(shown) == 10 and shown[9].endswith("2 did not fit into memory\nground is done after 0:05:00.\n")
    assert all("\n" not in line for line in shown[:9])
    monkeypatch.setenv("COLUMNS", "20")
    assert all(len(line) < 20 for line in told(True, 30.0).replace("\x1b[K", "").split("\r")[1:10])
    assert told(True, 0.01).count("\r") == 2  # the first and the last


def test_a_file_gets_a_line_now_and_then():
    lines = told(False, 25.0).splitlines()
    assert [line.split()[4] for line in lines[:-1]] == ["1/10", "4/10", "7/10", "10/10"]
    assert "\r" not in told(False, 25.0) and "\x1b" not in told(False, 25.0)


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_tensorboard_gets_losses_usage_and_samples(tmp_path):
    pytest.importorskip("tensorboard")
    recipe = tiny_curriculum(4, validate_every=2, sample_every=4, sample_steps=1)
    from cologen.training.monitor.log import Log

    tiny_run(tmp_path, recipe, listeners=[Log(tmp_path), TensorBoard(tmp_path)]).train(only="inpaint")
    found = events(tmp_path / "tensorboard/1-inpaint")
    steps = [line for line in read_log(tmp_path / "log.jsonl") if "task" in line]
    checks = [line for line in read_log(tmp_path / "log.jsonl") if "validation" in line]
    losses = [(event.step, event.value) for event in found.Scalars("train/task")]
    assert losses == [(line["iteration"], pytest.approx(line["task"])) for line in steps]
    assert [event.value for event in found.Scalars("usage/inpaint")] == [1.0] * 4
    held = [(event.step, event.value) for event in found.Scalars("validation/inpaint")]
    assert held == [(line["iteration"], pytest.approx(line["validation"]["inpaint"]["loss"])) for line in checks]
    assert [event.step for event in found.Images("samples")] == [4]


def test_without_tensorboard_training_goes_on_with_one_sentence(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with caplog.at_level("INFO"):
        tiny_run(tmp_path, tiny_curriculum(1), listeners=[TensorBoard(tmp_path)]).train()
    said = [record.getMessage() for record in caplog.records if "TensorBoard" in record.getMessage()]
    assert said == ["TensorBoard is not installed: training goes on without its files."]


def test_what_cannot_be_told_stops_nothing_and_is_said_once(tmp_path, caplog):
    (tmp_path / "samples").write_text("in the way")
    recipe = tiny_curriculum(2, sample_every=1, sample_steps=1)
    bank = tiny_run(tmp_path, recipe, listeners=[Samples(tmp_path)]).train()
    assert len(bank.info.experts) == 3
    assert [record.getMessage()[:21] for record in caplog.records] == ["Samples cannot write "]


def test_samples_are_the_pictures_that_were_drawn(tmp_path):
    samples, trainer = Samples(tmp_path), tiny_trainer(tiny_inputs(None, None, None, 0, 1, None).host)
    for trainer.iteration in (9, 10):
        grid = np.random.default_rng(trainer.iteration).integers(0, 256, (8, 24, 3), dtype=np.uint8)
        samples.on_samples(trainer, grid)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "2-ground-000000009.png",
        "2-ground-000000010.png",
    ]
    with Image.open(find_latest(tmp_path, "ground")) as picture:
        assert np.array_equal(np.asarray(picture), grid)
    assert find_latest(tmp_path, "round") is None and find_latest(tmp_path, "inpaint") is None


def painted(picture, colour, box=None):
    """Where a curve's colour is, as rows and columns."""
    pixels = np.asarray(picture if box is None else picture.crop(box)).astype(int)
    return np.argwhere(np.abs(pixels - np.array(colour)).sum(-1) < 60)


PLOT = (LEFT + 1, TOP - 4, 720, 360)
"""Where curves are, without the legend."""


def test_a_chart_puts_values_where_its_axes_say():
    rising = painted(draw_chart("t", {"a": Curve([0, 100], [0.0, 1.0])}), COLOURS[0], PLOT)
    first, last = rising[rising[:, 1] < 20], rising[rising[:, 1] > 600]
    assert first[:, 0].min() > 200 > last[:, 0].max()
    level = painted(draw_chart("t", {"a": Curve([0, 1, 2], [0.3] * 3)}), COLOURS[0], PLOT)
    assert np.ptp(level[:, 0]) < 9 and np.ptp(level[:, 1]) > 600
    dot = painted(draw_chart("t", {"a": Curve([5], [0.3])}), COLOURS[0], PLOT)
    assert 0 < len(dot) < 100 and np.ptp(dot[:, 0]) < 12


def test_a_chart_leaves_out_what_is_no_number_and_shows_every_name():
    nan = float("nan")
    clean = draw_chart("t", {"a": Curve([0, 2, 3], [1.0, 2.0, 1.5])})
    assert draw_chart("t", {"a": Curve([0, 1, 2, 2.5, 3], [1.0, nan, 2.0, math.inf, 1.5])}) == clean
    nothing = draw_chart("t", {})
    assert nothing.size == (720, 360) and not len(painted(nothing, COLOURS[0]))
    both = draw_chart("t", {"a": Curve([1, 2], [nan, nan]), "b": Curve([1, 2], [3.0, 4.0])})
    assert len(painted(both, COLOURS[0], (0, 0, 720, TOP - 4))) > 50  # in the legend
    assert not len(painted(both, COLOURS[0], PLOT)) and len(painted(both, COLOURS[1], PLOT)) > 500
    many = Curve(np.arange(10**5), np.ones(10**5))
    assert len(painted(draw_chart("t", {"a": many}, smooth=50), COLOURS[0], PLOT)) > 500


@pytest.mark.parametrize("low, high", [(0, 1), (2.30, 4.21), (-3e8, 1e7), (1e-9, 2e-9), (0.27, 0.33), (1, 60)])
def test_ticks_are_few_round_numbers_within(low, high):
    found = place_ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-6 * (high - low) <= value <= high + 1e-6 * (high - low) for value in found)
    steps = {f"{b - a:.3e}" for a, b in zip(found, found[1:])}
    assert len(steps) == 1 and steps.pop()[:5] in ("1.000", "2.000", "5.000")


def test_iterations_on_an_axis_are_whole():
    assert place_ticks(1, 5, 8, least=1) == [1, 2, 3, 4, 5] and place_ticks(4.5, 5.5, 8, least=1) == [5]


def test_numbers_on_axes_are_short():
    assert [format_number(value) for value in (0, 0.25, 1500, 20_000, 2.5e6, -3e8, 7e9)] == [
        "0", "0.25", "1500", "20k", "2.5M", "-300M", "7G",
    ]  # fmt: skip


def test_a_history_lays_stages_end_to_end():
    lines = [
        {"stage": s, "iteration": i, "task": t, "used": 0.5, "usage": {s: 0.5}, "seconds": 2.0, "missed": 1}
        for s, i, t in (("a", 1, 3.0), ("a", 2, 2.0), ("b", 1, 5.0))
    ]
    check = {"stage": "b", "iteration": 1, "validation": {"a": {"loss": 0.5, "usage": {"a": 1.0}}}}
    found = History.from_log([*lines, {"stage": "b", "iteration": 1}, check, {**check, "validation": 3}])
    assert found.loss == {"a": Curve([1, 2], [3, 2]), "b": Curve([3], [5])}
    assert found.validation == {"a": Curve([3], [0.5])} and found.last == {"b": {"a": (0.5, {"a": 1.0})}}
    assert found.seconds == {"a": 4, "b": 2} and found.marks == {"a": 0, "b": 2}


class Page(html.parser.HTMLParser):
    """What a browser would make of a page: its words, its tags, and what it would load."""

    def __init__(self, text):
        super().__init__()
        self.words, self.tags, self.loads = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "data")]

    def handle_data(self, data):
        self.words.append(data.strip())


def test_the_report_needs_nothing_beside_it_and_escapes_what_it_is_given(tmp_path):
    recipe = tiny_curriculum(3, validate_every=3, sample_every=3, sample_steps=1)
    recipe.toy["<script>alert(1)</script>"] = "</td><img src=http://example.org>"
    from cologen.training.monitor.log import Log

    tiny_run(tmp_path, recipe, listeners=[Log(tmp_path), Samples(tmp_path)]).train()
    write_report(tmp_path / "report.html", recipe, 123456, "<b>mine</b>")
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags and "b" not in page.tags and "link" not in page.tags
    assert "toy.<script>alert(1)</script>" in page.words and "CoLoGen training: <b>mine</b>" in page.words
    assert len(page.loads) == 6 and all(load.startswith("data:image/png;base64,") for load in page.loads)
    assert "url(" not in text and "@import" not in text
    assert "123456" in page.words and "0.003" in page.words
    last = [line for line in read_log(tmp_path / "log.jsonl") if "validation" in line][-1]
    for task, found in last["validation"].items():
        assert any(word.startswith(f"{found['loss']:.4f} (inpaint ") for word in page.words), task
    assert not list(tmp_path.glob(".*"))


def test_the_report_of_a_run_without_a_log_is_a_page_too(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps({"stage": "inpaint", "iteration": 1, "task": "<i>"}) + "\n")
    write_report(tmp_path / "report.html", tiny_curriculum(1), 0, "r")
    assert "No validation yet." in Page((tmp_path / "report.html").read_text()).words
    assert not re.search("<i>", (tmp_path / "report.html").read_text())
