"""A stage trains on what its recipe's tables name, through the one loop."""

import layouts
import numpy as np
import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.training.checkpoint.run_record import fingerprint
from cologen.training.cli import main as cli
from cologen.training.data.encoded.dataset import load_dataset
from cologen.training.data.sets import open_dataset
from cologen.training.data.tasks.examples import ExampleStream
from cologen.training.from_scratch.store import open_encoders
from cologen.training.monitor.log import read_log
from cologen.training.recipes.curriculum import load_curriculum, parse_curriculum
from cologen.training.setup.check_objects import check_objects
from cologen.training.setup.stage_data import StageDatasets, plan_stage_data
from cologen.training.toy.store import TOY

RECIPE = """
base = "toy"
rank = 2
alpha = 4.0
resolution = 64
sample_every = 0
validate_every = 0
[toy]
examples = 4
[[stages]]
name = "inpaint"
data = ["coco-stuff", "mine", "toy"]
iterations = 2
batch = 2
rho = 1.0
[data.coco-stuff]
path = "coco"
examples = 5
[data.mine]
set = "json-lines"
path = "mine"
flip = 0.5
"""


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layouts.coco_stuff(tmp_path / "coco")
    layouts.json_lines(tmp_path / "mine")
    (tmp_path / "mine.toml").write_text(RECIPE)
    return tmp_path


def test_a_stage_trains_on_two_sets_and_the_toy_world(there, capsys):
    assert cli.main(["train", "mine.toml", "--device", "cpu"]) == 0, capsys.readouterr().err
    out = there / "out/train/mine"
    assert [line["iteration"] for line in read_log(out / "log.jsonl") if "task" in line] == [1, 2]
    assert list(Bank.open(out / "bank.safetensors").info.experts) == ["inpaint"]
    kept = {path.name.split("-")[1]: load_dataset(path) for path in (out / "lessons").iterdir()}
    assert {name: len(dataset) for name, dataset in kept.items()} == {"coco": 5, "mine": 3, "4": 4}
    before = (out / "bank.safetensors").read_bytes()
    assert cli.main(["train", "mine.toml", "--device", "cpu", "--resume"]) == 0
    assert (out / "bank.safetensors").read_bytes() == before


def test_samples_are_what_the_encoders_make_of_the_examples(there):
    curriculum, encoders = load_curriculum("mine.toml"), open_encoders(TOY)
    dataset = StageDatasets(plan_stage_data(curriculum, 4, encoders, 7), there / "lessons", lambda *_: None)["inpaint"]
    samples = dataset.samples
    expected = list(ExampleStream(open_dataset("coco-stuff", curriculum.data["coco-stuff"]), "inpaint", 64, 7).take(5))
    rows = [i for i, id in enumerate(samples.ids) if id.isdecimal()]
    held = samples.ids[dataset.train_count :]
    assert not {*held} & {*samples.ids[: dataset.train_count]}, "a picture's cuts are on one side"
    expected.sort(key=lambda example: example.id in held)
    assert [samples.ids[i] for i in rows] == [example.id for example in expected]
    assert torch.equal(samples.target[rows], encoders.encode([example.target for example in expected]))
    assert torch.equal(samples.source[rows], encoders.encode([example.source for example in expected]))
    assert [samples.prompts[i] for i in rows] == [example.prompt for example in expected]
    assert len(dataset) == 12 and any(id.startswith("inpaint-") for id in held)


def test_the_tables_are_part_of_what_a_run_is_of():
    plain = parse_curriculum(RECIPE, "a")
    moved = parse_curriculum(RECIPE, "a", ["data.mine.flip=0.0"])
    assert moved.data["mine"] == {"set": "json-lines", "path": "mine", "flip": 0.0}
    assert fingerprint(plain, 0) != fingerprint(moved, 0)


def test_a_table_can_come_from_the_terminal():
    paper = load_curriculum("paper", ["data.coco-stuff.path=/coco", "data.refcoco+.path=/refer", "data.lvis.images=x"])
    assert paper.data == {"coco-stuff": {"path": "/coco"}, "refcoco+": {"path": "/refer"}, "lvis": {"images": "x"}}


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (["inpaint.data=[\"ade20k\"]"], 'names the data set ade20k, of which the recipe says no more: set data.ade20k.path=FOLDER'),
        (["data.mine.path=nowhere"], "There is no nowhere (data.mine), expected"),
        (["data.mine.set=magicbrush"], "mine (data.mine) is not laid out as expected"),
        (["data.mine.size=3"], "data.mine has an unknown entry 'size'"),
        (["data=3"], "data is '3', expected an object"),
        (["inpaint.task=edit", "inpaint.data=[\"coco-stuff\"]"], "The task of coco-stuff is 'edit', expected one of 'inpaint', 'control'"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence_before_anything_is_trained(there, capsys, changes, sentence):
    assert cli.main(["train", "mine.toml", "--device", "cpu", *changes]) == 1
    assert sentence in capsys.readouterr().err


UNLABELLED = """
base = "toy"
resolution = 64
[[stages]]
name = "inpaint"
data = ["journeydb", "ade20k", "coco-stuff"]
[[stages]]
name = "control"
data = ["ade20k"]
[data.journeydb]
path = "journey"
[data.ade20k]
path = "captioned"
[data.coco-stuff]
path = "coco"
"""


def test_pictures_without_objects_are_said_before_a_run_or_refused(there, caplog):
    layouts.journeydb(there / "journey")
    layouts.captioned(there / "captioned")
    check_objects(parse_curriculum(UNLABELLED, "a"))
    said = "makes random holes alone of {}, whose pictures come without objects"
    assert len(caplog.messages) == 2
    assert said.format("journeydb") in caplog.messages[0] and said.format("ade20k") in caplog.messages[1]
    refused = parse_curriculum(UNLABELLED, "a", ["unlabelled=refuse"])
    with pytest.raises(ValueError, match=said.format("journeydb") + '.* or set unlabelled = "warn"'):
        check_objects(refused)
    with pytest.raises(ValueError, match=said.format("ade20k")):
        check_objects(parse_curriculum(UNLABELLED, "a", ["unlabelled=refuse", "data.journeydb.labels=there"]))
    layouts.ade20k(there / "challenge")  # the layout with classes
    objects = ["data.journeydb.labels=there", "data.ade20k.path=challenge"]
    caplog.clear()
    check_objects(parse_curriculum(UNLABELLED, "a", ["unlabelled=refuse", *objects]))
    check_objects(parse_curriculum(UNLABELLED, "a", [f"data.{name}.cache=c" for name in ("journeydb", "ade20k")]))
    assert not caplog.messages
    with pytest.raises(ValueError, match=said.format("journeydb")):
        check_objects(parse_curriculum(UNLABELLED, "a", ["unlabelled=refuse", "data.journeydb.cache=c"]), caches=True)


def test_the_papers_run_is_refused_where_journeydb_has_no_labels(there, capsys):
    layouts.journeydb(there / "journey")
    words = ["paper", "base=toy", "data.journeydb.path=journey", 'inpaint.data=["journeydb"]', "--device", "cpu"]
    others = [f'{name}.data=["toy"]' for name in ("ground", "control", "subject", "edit")]
    assert cli.main(["train", *words, *others]) == 1
    assert "journeydb, whose pictures come without objects" in capsys.readouterr().err
    assert cli.main(["data", "cache", *words, *others, "data.journeydb.cache=c", "toy.rebuild=false"]) == 1
    assert "journeydb, whose pictures come without objects" in capsys.readouterr().err
    cli.main(["data", "check", *words[:-2], *others, "--n", "2"])
    assert "journeydb, whose pictures come without objects" in capsys.readouterr().out


def test_two_stages_of_a_task_have_each_its_own_data(there, capsys):
    (there / "mine.toml").write_text(RECIPE + '[[stages]]\nname = "more"\ntask = "inpaint"\ndata = ["mine"]\n')
    assert cli.main(["train", "mine.toml", "--device", "cpu"]) == 0, capsys.readouterr().err
    kept = StageDatasets(
        plan_stage_data(load_curriculum("mine.toml"), 4, open_encoders(TOY), 0), there / "none", lambda *_: None
    )
    assert (len(kept["inpaint"]), len(kept["more"])) == (12, 3)


def test_encoding_holds_a_chunk_of_pictures_at_a_time():
    """Examples may be a stream that never fits into memory."""
    from cologen.training.data.encoded.encode import encode_dataset
    from cologen.training.data.sample import Example

    alive = []

    class Encoders:
        def encode(self, pictures):
            alive.append(len(pictures))
            return torch.stack([torch.from_numpy(picture[:2, :2, 0].copy()) for picture in pictures])

        def encode_prompts(self, prompts):
            return torch.zeros(len(prompts), len(prompts), 3), torch.zeros(len(prompts), 2)

    stream = (Example(str(i), "edit", f"a\n{i}", *[np.full((4, 4, 3), i, np.uint8)] * 2) for i in range(7))
    samples = encode_dataset(Encoders(), "edit", stream, chunk=3).samples
    assert alive == [3, 3, 3, 3, 1, 1] and samples.ids == tuple("0123456") and samples.prompts[3] == "a 3"
    assert samples.target[:, 0, 0].tolist() == list(range(7)) and samples.context.shape == (7, 3, 3)
    with pytest.raises(ValueError, match="edit has 1 examples, expected two or more"):
        encode_dataset(Encoders(), "edit", iter([Example("a", "edit", "", *[np.zeros((4, 4, 3), np.uint8)] * 2)]))
