"""Every set of the paper's Table 1 in its public layouts: what is read, and what of it each task trains on."""

import json
import pickle
import shutil
import sys
from itertools import islice
from zlib import crc32

import layouts
import numpy as np
import pytest
from cologen.training.data.formats.palettes import ADE20K, COCO_STUFF
from cologen.training.data.formats.plain_pickle import load_plain
from cologen.training.data.sets import DATASETS, open_dataset
from cologen.training.data.sets.stream import Stream
from cologen.training.data.tasks import EXAMPLE_MAKERS
from cologen.training.data.tasks.examples import ExampleStream
from cologen.training.recipes.curriculum import load_curriculum
from layouts import LAYOUTS, box_mask, decode_picture, draw_picture, encode_picture
from pack import ROOT

CASES = [(name, number) for name, some in LAYOUTS.items() for number in range(len(some))]


def through_jpeg(seed) -> np.ndarray:
    return decode_picture(encode_picture(draw_picture(seed)))


def lay_out(tmp_path, name, number=0, **table):
    LAYOUTS[name][number](tmp_path)
    return open_dataset(name, {"path": str(tmp_path), **table})


def read_all(dataset) -> dict:
    stream = Stream(dataset.reader, dataset.name)
    some = {one.id: one for one in stream}
    assert stream.counter.broken == 0, stream.counter.summary()
    return some


def test_every_set_is_laid_out_here_and_every_set_of_the_papers_recipe_is_one():
    assert LAYOUTS.keys() == DATASETS.keys()
    for recipe in ("paper", "small", "toy"):
        for stage in load_curriculum(recipe).stages:
            for name in set(stage.data) - {"toy"}:
                assert stage.task in DATASETS[name].feeds


@pytest.mark.parametrize("name, number", CASES)
def test_every_layout_gives_examples_for_every_task_it_feeds(tmp_path, name, number):
    dataset = lay_out(tmp_path, name, number)
    tasks = dataset.info.feeds
    if name in ("json-lines", "parquet", "webdataset"):  # what is in them decides
        kind = type(next(iter(read_all(dataset).values())))
        tasks = [task for task, maker in EXAMPLE_MAKERS.items() if maker.takes is kind]
    for task in tasks:
        examples = list(ExampleStream(dataset, task, 32).take(7))
        assert len(examples) == 7
        for example in examples:
            assert example.task == task and example.source.shape == example.target.shape == (32, 32, 3)
            assert example.source.dtype == example.target.dtype == np.uint8


@pytest.mark.parametrize("name, number", CASES)
def test_a_reader_travels_as_its_settings_and_reads_the_same_there(tmp_path, name, number):
    dataset = lay_out(tmp_path, name, number)
    first = read_all(dataset)
    again = pickle.loads(pickle.dumps(dataset.reader))  # noqa: S301
    assert vars(again).keys() <= {entry for entry in dataset.reader.__dataclass_fields__}
    assert list(read_all(type("S", (), {"reader": again, "name": name}))) == list(first)
    assert dataset.reader.count_rows() in (None, len(first)) or name == "subjects200k"


def test_ade20k(tmp_path):
    labels = layouts.ade20k(tmp_path)
    samples = read_all(open_dataset("ade20k", {"path": str(tmp_path)}))
    assert sorted(samples) == [f"ADE_train_{i:08}" for i in (1, 2, 3)]
    sample = samples["ADE_train_00000002"]
    assert np.array_equal(sample.picture, through_jpeg(2)) and sample.caption == "airport terminal"
    expected = np.zeros((*labels.shape, 3), np.uint8)
    for y, x in np.ndindex(labels.shape):
        if labels[y, x]:
            expected[y, x] = ADE20K[labels[y, x] - 1]
    assert np.array_equal(sample.maps["seg"], expected)
    (thing,) = sample.things  # the wall fills more than half: no thing
    assert (thing.name, thing.kind) == ("", "car") and np.array_equal(thing.mask, box_mask())


@pytest.mark.parametrize("train_ids", [False, True])
def test_coco_stuff_in_both_label_forms(tmp_path, train_ids):
    labels = layouts.coco_stuff(tmp_path, train_ids=train_ids)
    sample = read_all(open_dataset("coco-stuff", {"path": str(tmp_path)}))["000000000025"]
    assert sample.caption == "dog 25, 0" and np.array_equal(sample.picture, through_jpeg(25))
    expected = np.zeros((*labels.shape, 3), np.uint8)
    for y, x in np.ndindex(labels.shape):
        if labels[y, x] < 255:
            expected[y, x] = COCO_STUFF[labels[y, x]]
    assert np.array_equal(sample.maps["seg"], expected)
    assert [(thing.kind, thing.mask.sum()) for thing in sample.things] == [("dog", 400)]


def test_coco_stuff_takes_cocos_own_masks_where_they_are(tmp_path):
    layouts.coco_stuff(tmp_path)
    two = [layouts.make_annotation(1, 9, 18), layouts.make_annotation(2, 9, 18, [40, 8, 60, 8, 60, 20, 40, 20])]
    crowd = layouts.make_annotation(3, 9, 1, iscrowd=1) | {"segmentation": {"size": [48, 64], "counts": [48 * 64]}}
    lists = {"images": [{"id": 9}], "annotations": [*two, crowd], "categories": layouts.CATEGORIES}
    layouts.write_file(tmp_path / "annotations/instances_train2017.json", lists)
    samples = read_all(open_dataset("coco-stuff", {"path": str(tmp_path)}))
    assert [(thing.kind, thing.mask.sum()) for thing in samples["000000000009"].things] == [("dog", 400), ("dog", 240)]
    assert samples["000000000025"].things == ()


def test_captioned_sets_bring_their_own_maps(tmp_path):
    layouts.captioned(tmp_path)
    samples = read_all(open_dataset("coco-stuff", {"path": str(tmp_path)}))
    assert [sample.caption for sample in samples.values()] == ["a scene 0", "a scene 1", "a scene 2"]
    for i, sample in enumerate(samples.values()):
        assert np.array_equal(sample.picture, through_jpeg(i)) and np.array_equal(
            sample.maps["seg"], draw_picture(i + 90)
        )
    assert len(read_all(open_dataset("coco-stuff", {"path": str(tmp_path), "split": "validation"}))) == 1


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name, by", [("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd")])
def test_refcoco(tmp_path, name, by, protocol):
    layouts.refcoco(tmp_path, name, by, protocol=protocol)
    samples = read_all(open_dataset(name, {"path": str(tmp_path)}))
    assert sorted(samples) == ["1", "2"]
    assert np.array_equal(samples["2"].picture, through_jpeg(2))
    things = [(thing.name, thing.kind, int(thing.mask.sum())) for thing in samples["1"].things]
    # what both are called is left out; the dog has no name, but a class
    assert sorted(things) == [
        ("", "dog", 140),
        ("left man", "person", 400),
        ("man in red", "person", 400),
        ("right man", "person", 240),
    ]
    assert sorted(read_all(open_dataset(name, {"path": str(tmp_path), "split": "val"}))) == ["3"]


def test_a_class_with_a_crowd_is_not_asked_for_as_a_whole(tmp_path):
    layouts.refcoco(tmp_path)
    path = tmp_path / "refcoco/instances.json"
    lists = json.loads(path.read_text())
    crowd = {
        "id": 99,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 1,
        "segmentation": {"size": [48, 64], "counts": [3072]},
    }
    path.write_text(json.dumps({**lists, "annotations": [*lists["annotations"], crowd]}))
    sample = read_all(open_dataset("refcoco", {"path": str(tmp_path)}))["1"]
    assert {(thing.name, thing.kind) for thing in sample.things} == {
        ("left man", ""),
        ("man in red", ""),
        ("right man", ""),
        ("", "dog"),
    }


def test_refs_that_could_run_code_are_refused(tmp_path):
    layouts.refcoco(tmp_path)
    (tmp_path / "refcoco/refs(unc).p").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match="the instruction GLOBAL, which could run code"):
        Stream(open_dataset("refcoco", {"path": str(tmp_path)}).reader)


def test_a_phrase_that_is_no_text_is_refused(tmp_path):
    """As text, a list that holds another twice, 60 times over, would be longer than any memory."""
    layouts.refcoco(tmp_path)
    path = tmp_path / "refcoco/refs(unc).p"
    refs = load_plain(path)
    for _ in range(60):
        refs[0]["sentences"][0]["sent"] = [refs[0]["sentences"][0]["sent"]] * 2
    path.write_bytes(pickle.dumps(refs))
    with pytest.raises(ValueError, match="holds no list of references: download it again"):
        Stream(open_dataset("refcoco", {"path": str(tmp_path)}).reader)


@pytest.mark.parametrize("version", ["v1", "v0.5"])
def test_lvis(tmp_path, version):
    layouts.lvis(tmp_path, version)
    samples = read_all(open_dataset("lvis", {"path": str(tmp_path)}))
    assert {id: [thing.kind for thing in sample.things] for id, sample in samples.items()} == {
        "5": ["trash can", "person"],
        "6": ["trash can"],  # its persons are not all marked
    }
    assert np.array_equal(samples["6"].picture, through_jpeg(6))
    assert np.array_equal(samples["6"].things[0].mask, box_mask())


def test_journeydb(tmp_path):
    layouts.journeydb(tmp_path)
    samples = read_all(open_dataset("journeydb", {"path": str(tmp_path)}))
    assert {id: sample.caption for id, sample in samples.items()} == {
        "000/uuid0": "prompt 0 --ar 3:2",  # no caption: the prompt
        "000/uuid2": "caption 2",
        "001/uuid1": "caption 1",
    }
    assert np.array_equal(samples["001/uuid1"].picture, through_jpeg(1))


def test_multigen_with_and_without_its_depth(tmp_path):
    layouts.multigen(tmp_path, "depth")
    samples = read_all(open_dataset("multigen-20m-depth", {"path": str(tmp_path)}))
    assert list(samples) == [f"aesthetics_6_plus_0/{i}.jpg" for i in range(3)]
    for i, sample in enumerate(samples.values()):
        assert np.array_equal(sample.picture, through_jpeg(i)) and sample.caption == f"prompt {i}"
        assert list(sample.maps) == ["depth"] and sample.maps["depth"].shape == sample.picture.shape
    plain = read_all(open_dataset("multigen-20m", {"path": str(tmp_path), "kind": "depth"}))
    assert [list(sample.maps) for sample in plain.values()] == [[]] * 3


def test_multigen_as_parquet(tmp_path):
    layouts.multigen_parquet(tmp_path)
    samples = list(read_all(open_dataset("multigen-20m-depth", {"path": str(tmp_path)})).values())
    assert [sample.caption for sample in samples] in (
        [f"prompt {i}" for i in (0, 1, 2)],
        [f"prompt {i}" for i in (2, 0, 1)],
    )
    for sample in samples:
        i = int(sample.caption[-1])
        assert np.array_equal(sample.picture, through_jpeg(i)) and np.array_equal(
            sample.maps["depth"], draw_picture(i + 50)
        )
    kinds = {
        example.kind
        for example in ExampleStream(open_dataset("multigen-20m-depth", {"path": str(tmp_path)}), "control", 32).take(6)
    }
    assert kinds == {"depth"}
    kinds = {
        example.kind
        for example in ExampleStream(open_dataset("multigen-20m", {"path": str(tmp_path)}), "control", 32).take(30)
    }
    assert kinds == {"canny", "hed", "lineart"}


@pytest.mark.parametrize("tile, padding", [(512, 8), (512, 16), (1024, 8)])
def test_subjects200k_is_cut_into_its_tiles(tmp_path, tile, padding):
    layouts.subjects200k(tmp_path, tile, padding)
    pairs = list(
        read_all(open_dataset("subjects200k", {"path": str(tmp_path), "tile": tile, "padding": padding})).values()
    )
    assert [pair.first_caption for pair in pairs] == ["cup 1 here", "cup 5 here"]
    for pair, seed in zip(pairs, (1, 5)):
        assert pair.first.shape == pair.second.shape == (tile, tile, 3)
        assert (pair.first == (seed, 0, 100)).all() and (pair.second == (0, seed, 200)).all()
        assert pair.second_caption == f"cup {seed} there"


def test_subjects200k_by_score_and_collection(tmp_path):
    layouts.subjects200k(tmp_path)

    def captions(**table):
        some = read_all(open_dataset("subjects200k", {"path": str(tmp_path), **table}))
        return [pair.first_caption.split()[1] for pair in some.values()]

    assert captions(score=4.0) == ["1", "2", "5"] and captions(score=0.0) == ["1", "2", "4", "5"]
    assert captions(collection="collection_2") == ["5"]
    dataset = open_dataset("subjects200k", {"path": str(tmp_path), "tile": 1024})
    stream = Stream(dataset.reader)
    assert list(stream) == [] and "too small for two tiles of 1024" in stream.counter.summary()


def test_omniedit_and_magicbrush(tmp_path):
    layouts.omniedit(tmp_path / "omni")
    triples = read_all(open_dataset("omniedit", {"path": str(tmp_path / "omni")}))
    for i in range(4):
        triple = triples[f"task_{i}"]
        assert np.array_equal(triple.before, through_jpeg(i)) and np.array_equal(triple.after, through_jpeg(i + 20))
        assert triple.instruction == (f"short {i}", f"a longer wording {i}")[crc32(f"task_{i}".encode()) % 2]
    assert list(read_all(open_dataset("omniedit", {"path": str(tmp_path / "omni"), "task": "style"}))) == [
        "task_1",
        "task_3",
    ]
    layouts.magicbrush(tmp_path / "magic")
    triples = read_all(open_dataset("magicbrush", {"path": str(tmp_path / "magic")}))
    assert list(triples) == ["100-1", "100-2", "101-1"]
    assert triples["100-2"].instruction == "do 1" and np.array_equal(triples["100-2"].after, draw_picture(21))


def test_own_json_lines_with_masks_and_other_words(tmp_path):
    dataset = lay_out(tmp_path, "json-lines")
    samples = read_all(dataset)
    assert list(samples) == ["line-0", "line-1", "line-2"]
    (thing,) = samples["line-1"].things
    assert (thing.name, thing.kind) == ("box 1", "box") and np.array_equal(thing.mask, box_mask())
    lines = [{"source": f"pictures/{i}.png", "target": "pictures/0.png", "caption": "c"} for i in range(2)]
    (tmp_path / "omini.jsonl").write_text("\n".join(map(json.dumps, lines)))
    columns = {"before": "source", "after": "target", "instruction": "caption"}
    dataset = open_dataset("mine", {"set": "json-lines", "path": str(tmp_path / "omini.jsonl"), "columns": columns})
    triples = list(read_all(dataset).values())
    assert np.array_equal(triples[1].before, draw_picture(1)) and triples[1].instruction == "c"


def test_webdataset(tmp_path):
    samples = read_all(lay_out(tmp_path, "webdataset"))
    assert sorted(samples) == [f"part/{i:04}" for i in range(4)]
    sample = samples["part/0003"]
    assert np.array_equal(sample.picture, through_jpeg(3)) and sample.caption == "caption 3"
    assert np.array_equal(sample.things[0].mask, box_mask())


def test_a_folder_serves_every_task(tmp_path):
    dataset = lay_out(tmp_path, "folder")
    for task in DATASETS["folder"].feeds:
        example = next(ExampleStream(dataset, task, 48).take(1))
        i = int(example.prompt[-1])
        assert example.id == f"pic{i}" and example.task == task


def test_examples_take_another_epoch_and_another_look(tmp_path):
    dataset = lay_out(tmp_path, "magicbrush")
    examples = list(ExampleStream(dataset, "edit", 32, seed=4).take(9))
    assert sorted(example.id for example in examples) == sorted(["100-1", "100-2", "101-1"] * 3)
    looks = [example.target.tobytes() for example in examples if example.id == "100-1"]
    assert len(set(looks)) == 3
    again = list(ExampleStream(dataset, "edit", 32, seed=4).take(9))
    assert all(np.array_equal(a.target, b.target) and a.id == b.id for a, b in zip(examples, again))
    assert len(list(islice(ExampleStream(dataset, "edit", 32).take(0), 99))) == 3


def test_both_pictures_of_an_edit_are_seen_alike(tmp_path):
    layouts.write_parquet(
        tmp_path / "a.parquet",
        [
            {
                "before": layouts.make_cell(draw_picture(i), "PNG"),
                "after": layouts.make_cell(255 - draw_picture(i), "PNG"),
                "instruction": "negate",
            }
            for i in range(3)
        ],
    )
    dataset = open_dataset("mine", {"set": "parquet", "path": str(tmp_path), "flip": 0.5})
    for example in ExampleStream(dataset, "edit", 48).take(12):
        off = np.abs(example.source.astype(int) + example.target - 255)
        assert off.mean() < 1  # resizing rounds


@pytest.mark.parametrize(
    "name, table, sentence",
    [
        ("nothing", {"path": "."}, "data.nothing.set is 'nothing', expected one of 'ade20k'"),
        ("ade20k", {}, "data.ade20k has no path, expected the folder of the set: ADEChallengeData2016"),
        (
            "ade20k",
            {"path": "/nowhere"},
            r"There is no /nowhere \(data.ade20k\), expected ADEChallenge",
        ),
        ("magicbrush", {"path": "hf://datasets/osunlp/MagicBrush"}, "nothing is downloaded unless you ask for it"),
        ("refcoco", {"path": "hf://datasets/a/b", "download": True}, "is not laid out as expected"),
        ("folder", {"path": ".", "size": 3}, "data.folder has an unknown entry 'size'"),
        ("folder", {"path": ".", "flip": 2.0}, "flip is 2.0, expected 0 to 1"),
        ("../up", {"set": "folder", "path": "."}, "data.../up is no name for a set, expected letters"),
        ("folder", {"path": 3}, "data.folder.path is '3', expected a text"),
        ("folder", {"path": ".", "examples": "all"}, "data.folder.examples is 'all', expected a whole number"),
    ],
)
def test_a_mistake_in_a_table_is_a_sentence(tmp_path, monkeypatch, name, table, sentence):
    monkeypatch.chdir(tmp_path)
    layouts.folder(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        Stream(open_dataset(name, table).reader)


def test_a_hub_is_read_through_its_own_client(tmp_path, monkeypatch):
    """The client is the library's; its files are on this disk."""
    import fsspec
    import huggingface_hub

    layouts.magicbrush(tmp_path / "datasets/osunlp/MagicBrush")
    monkeypatch.setattr(
        huggingface_hub,
        "HfFileSystem",
        lambda: fsspec.filesystem("dir", path=str(tmp_path), fs=fsspec.filesystem("file")),
    )
    dataset = open_dataset("magicbrush", {"path": "hf://datasets/osunlp/MagicBrush", "download": True})
    assert list(read_all(dataset)) == ["100-1", "100-2", "101-1"]


def test_without_the_package_there_is_a_sentence(tmp_path, monkeypatch):
    dataset = lay_out(tmp_path, "ade20k")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="read by the package datasets, which is not installed: pip install datasets"):
        list(Stream(dataset.reader))


def test_a_task_that_a_set_does_not_feed_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="The task of ade20k is 'edit', expected one of 'inpaint', 'control'"):
        ExampleStream(lay_out(tmp_path, "ade20k"), "edit", 32)
    dataset = lay_out(tmp_path / "b", "magicbrush", kinds=["canny"])
    with pytest.raises(ValueError, match="data.magicbrush.kinds is 'canny', expected one of"):
        ExampleStream(dataset, "edit", 32)


def test_labels_that_are_gone_break_their_sample_alone(tmp_path):
    dataset = lay_out(tmp_path, "ade20k")
    (tmp_path / "annotations/training/ADE_train_00000002.png").unlink()
    stream = Stream(dataset.reader, "ade20k")
    assert len(list(stream)) == 2
    assert stream.counter.reasons == {
        "ADE_train_00000002": "ADE_train_00000002.png cannot be read (No such file or directory)"
    }
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(FileNotFoundError, match="is not laid out as expected"):
        open_dataset("ade20k", {"path": str(tmp_path)})


def test_what_encoded_samples_are_of_is_written_as_ever():
    """Runs and caches know a set by these texts: another name would encode everything anew."""
    path = str(ROOT / "README.md")
    dataset = open_dataset("mine", {"set": "json-lines", "path": path, "flip": 0.5})
    assert repr(dataset.reader) == f"JsonLines(path={path!r}, columns={{}})"
    expected = "examples=0, kinds=(), labels='', flip=0.5, variants=1, resolutions=(), aspect=1.0, cache=''"
    assert repr(dataset.knobs) == f"Knobs(set='json-lines', {expected})"
    names = (
        "Ade20k Captioned CocoStuff JourneyDb JsonLines Lvis MagicBrush MultiGen MultiGenDepth MultiGenDepthParquet "
    )
    names += "MultiGenParquet OmniEdit OwnFolder Parquet RefCoco RefCocoG RefCocoPlus Subjects200k WebDataset"
    assert sorted({reader.__name__ for row in DATASETS.values() for reader in row.readers}) == names.split()
