"""A sixth task is a row in TASKS and one in EXAMPLE_MAKERS; a data set for it is one in DATASETS."""

import numpy as np
import pytest
from cologen.prw.bank.bank import Bank
from cologen.prw.tasks import TASKS
from cologen.training.cli import main as cli
from cologen.training.data.sample import MAP_KINDS, Sample
from cologen.training.data.sets import DATASETS, open_dataset
from cologen.training.data.tasks import EXAMPLE_MAKERS
from cologen.training.data.tasks.control import MAP_DRAWERS
from cologen.training.data.tasks.examples import ExampleStream
from cologen.training.data.tasks.folder import FolderExamples
from cologen.training.monitor.log import read_log
from PIL import Image
from sixth_task import SET, TASK, add_sixth_task

RECIPE = f"""
base = "toy"
rank = 2
alpha = 4.0
resolution = 64
sample_every = 0
validate_every = 0
[[stages]]
name = "sharp"
task = "{TASK}"
data = ["{SET}"]
iterations = 1
batch = 2
[data.{SET}]
path = "checks"
kinds = ["across"]
"""


@pytest.fixture
def there(tmp_path, monkeypatch):
    add_sixth_task(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks/numbers.txt").write_text("0 1 2 3")
    (tmp_path / "mine.toml").write_text(RECIPE)
    return tmp_path


def test_both_tables_have_the_same_tasks():
    assert tuple(EXAMPLE_MAKERS) == tuple(TASKS) and tuple(MAP_DRAWERS) == MAP_KINDS
    assert {task for row in DATASETS.values() for task in row.feeds} == set(TASKS)


def test_the_terminal_trains_it(there, capsys):
    assert cli.main(["train", "mine.toml", "--device", "cpu"]) == 0, capsys.readouterr().err
    out = there / "out/train/mine"
    assert len([line for line in read_log(out / "log.jsonl") if "task" in line]) == 1
    expert = Bank.open(out / "bank.safetensors").info.experts["sharp"]
    assert (expert.task, expert.iterations) == (TASK, 1)


def test_the_terminal_checks_and_lists_its_data(there, capsys):
    assert cli.main(["data", "check", "mine.toml", "--n", "3"]) == 0
    assert "3 of 4 read, 3 examples (across 3)" in capsys.readouterr().out
    assert (there / f"out/data/mine/{TASK}.png").exists()
    assert cli.main(["data", "list"]) == 0
    listed = capsys.readouterr().out
    assert f"{SET:20}{TASK}\n" in listed and f"{'folder':20}{', '.join(TASKS)}\n" in listed


def test_a_folder_and_records_of_ones_own_feed_it(there):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for name in ("a.png", "a.source.png"):
        Image.fromarray(pixels).save(there / name)
    (there / "a.txt").write_text("noise")
    example = FolderExamples(there, TASK, 32, centre=True).example(0, np.random.default_rng(0))
    assert example.task == TASK and np.array_equal(example.source, example.target)
    dataset = open_dataset("mine", {"set": "folder", "path": str(there)})
    assert [one.task for one in ExampleStream(dataset, TASK, 32).take(2)] == [TASK, TASK]


def test_the_toy_world_says_that_it_has_no_scenes_of_it(there, capsys):
    assert cli.main(["train", "mine.toml", "--device", "cpu", 'sharp.data=["toy"]']) == 1
    assert f"sharp.task is '{TASK}', expected one of 'inpaint'" in capsys.readouterr().err


def test_a_set_of_another_kind_is_a_sentence(there):
    examples = ExampleStream(open_dataset(SET, {"path": "checks"}), TASK, 32)
    examples.maker = EXAMPLE_MAKERS["subject"]
    with pytest.raises(ValueError, match="it is a sample, deblur takes a pair"):
        examples.make_example(Sample("a", np.zeros((40, 40, 3), np.uint8)), np.random.default_rng(0))
