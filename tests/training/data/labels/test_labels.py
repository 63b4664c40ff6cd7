"""Masks and phrases for pictures that have only captions, by GroundingDINO and SAM of random weights."""

import json

import layouts
import numpy as np
import pytest
import torch
from cologen.training.cli import main as cli
from cologen.training.data.formats.regions import MAX_SHARE, MIN_SHARE
from cologen.training.data.formats.run_length_masks import decode_mask, encode_mask
from cologen.training.data.labels.labeller import match_phrase, open_labeller
from cologen.training.data.labels.labels import Labels, write_labels
from cologen.training.data.labels.noun_phrases import find_word_runs
from cologen.training.data.sample import Sample
from cologen.training.data.sets import open_dataset
from cologen.training.data.sets.stream import Stream
from cologen.training.data.tasks.examples import ExampleStream
from layouts import SIZE, box_mask, draw_picture, encode_picture

pytest.importorskip("transformers")
from tiny_labellers import save_detector, save_segmenter  # noqa: E402

CAPTIONS = ["a red car and a dog on the tree", "the big house", "", "a cat, two cars and a dog"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return save_detector(root / "dino"), save_segmenter(root / "sam")


@pytest.fixture(scope="module")
def labeller(models):
    return open_labeller(*models, "cpu", 0.0)


def samples(count=4) -> list[Sample]:
    return [Sample(str(i), draw_picture(i, (48 + 8 * (i % 2), 64)), CAPTIONS[i % 4]) for i in range(count)]


def label_directly(models, sample, phrases):
    """Both models as their own pages use them, for one picture and one phrase at a time where that is possible."""
    from transformers import AutoProcessor, GroundingDinoForObjectDetection, SamModel, SamProcessor

    detector, to_detect = (
        GroundingDinoForObjectDetection.from_pretrained(models[0]),
        AutoProcessor.from_pretrained(models[0]),
    )
    segmenter, to_segment = SamModel.from_pretrained(models[1]), SamProcessor.from_pretrained(models[1])
    inputs = to_detect(images=sample.picture, text=". ".join(phrases) + ".", return_tensors="pt")
    with torch.no_grad():
        outputs = detector.eval()(**inputs)
    (result,) = to_detect.post_process_grounded_object_detection(
        outputs, inputs.input_ids, threshold=0.0, text_threshold=0.0, target_sizes=[sample.picture.shape[:2]]
    )
    found = []
    for i in result["scores"].argsort(descending=True)[:16]:
        box = result["boxes"][i].tolist()
        inputs = to_segment(images=sample.picture, input_boxes=[[box]], return_tensors="pt")
        with torch.no_grad():
            outputs = segmenter.eval()(**inputs)
        (masks,) = to_segment.post_process_masks(
            outputs.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )
        mask = masks[0, int(outputs.iou_scores[0, 0].argmax())].numpy()
        if MIN_SHARE <= mask.mean() <= MAX_SHARE:
            found.append(mask)
    return found


def test_boxes_and_masks_are_what_the_models_say(models, labeller):
    sample = samples(1)[0]
    (things,) = labeller.label([sample])
    expected = label_directly(models, sample, ["red car", "dog", "tree"])
    assert len(things) == len(expected) > 0
    for thing, mask in zip(things, expected):
        assert np.array_equal(decode_mask(thing["mask"], sample.picture.shape[:2]), mask)
        assert thing["kind"] in ("red car", "dog", "tree")
        names = [each["kind"] for each in things]
        assert thing["name"] == (thing["kind"] if names.count(thing["kind"]) == 1 else "")


def test_a_batch_of_other_captions_asks_every_picture_its_own(labeller):
    some = samples()
    assert find_word_runs(CAPTIONS[3]) == ["cat", "cars", "dog"]
    together = labeller.label(some)
    assert together[2] == []  # no caption, no question
    for sample, things in zip(some, together):
        assert {thing["kind"] for thing in things} <= set(find_word_runs(sample.caption))


@pytest.mark.parametrize(
    "caption, phrases",
    [
        ("", []),
        ("A red car parked in front of an old stone house.", ["red car parked", "front", "old stone house"]),
        ("dog, dog and DOG", ["dog"]),
        ("the very big blue shiny metal tea pot", ["shiny metal tea pot"]),
        ("of the and in", []),
        ("café—woman's well-known hat 3000", ["café", "woman's well-known hat"]),
        ("x " * 5000, ["x x x x"]),
    ],
)
def test_phrases_without_spacy(caption, phrases):
    assert find_word_runs(caption) == phrases


def test_an_answer_is_the_phrase_that_it_shares_words_with():
    phrases = ["red car", "dog", "old stone house"]
    assert match_phrase("car", phrases) == "red car" and match_phrase("stone house dog", phrases) == "dog"
    assert (
        match_phrase("", phrases) == match_phrase("##ing", phrases) == ""
        and match_phrase("dog. [SEP]", phrases) == "dog"
    )


def label_box(some):
    return [
        [{"name": sample.caption, "kind": "box", "mask": encode_mask(box_mask(sample.picture.shape[:2]))}]
        for sample in some
    ]


def lay_out(root, count=23):
    lines = []
    for i in range(count):
        layouts.write_file(root / f"{i}.png", encode_picture(draw_picture(i), "PNG"))
        lines.append({"id": f"p{i}", "picture": f"{i}.png", "caption": f"thing {i}"})
    (root / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return open_dataset("own", {"set": "json-lines", "path": str(root)})


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("crash", [None, 1, 2])
def test_labelling_goes_on_after_a_crash_and_nothing_is_lost_or_doubled(tmp_path, world, crash):
    dataset, out, calls = lay_out(tmp_path / "own"), tmp_path / "labels", []

    def label(some):
        calls.append(len(some))
        if crash is not None and len(calls) == 2 * crash:
            raise KeyboardInterrupt
        return label_box(some)

    for rank in range(world):
        for _ in range(2):
            try:
                for _ in write_labels(Stream(dataset.reader, "own", rank, world), label, "test", out, batch=2, part=4):
                    pass
            except KeyboardInterrupt:
                pass
    lines = [json.loads(line) for path in sorted(out.glob("*.jsonl")) for line in path.read_text().splitlines()]
    assert sorted(line["id"] for line in lines) == sorted(f"p{i}" for i in range(23))
    assert all(line["by"] == "test" for line in lines) and not list(out.glob(".*"))
    before = len(calls)
    assert (
        list(write_labels(Stream(dataset.reader, "own", 0, world), label, "test", out)) == [] and len(calls) == before
    )


def test_labels_become_things_of_the_set(tmp_path):
    dataset = lay_out(tmp_path / "own", 6)
    for _ in write_labels(Stream(dataset.reader), label_box, "test", tmp_path / "labels"):
        pass
    labels = Labels(tmp_path / "labels")
    (thing,) = labels.things("p4", SIZE)
    assert (thing.name, thing.kind) == ("thing 4", "box") and np.array_equal(thing.mask, box_mask())
    assert labels.things("unknown", SIZE) == ()
    table = {"set": "json-lines", "path": str(tmp_path / "own"), "labels": str(tmp_path / "labels")}
    kinds = {example.kind for example in ExampleStream(open_dataset("own", table), "inpaint", 48).take(30)}
    assert kinds == {"random", "object", "irregular"}
    example = next(ExampleStream(open_dataset("own", {**table, "kinds": ["box"]}), "ground", 48).take(1))
    assert f"thing {example.id[1:]}" in example.prompt


def test_damaged_or_missing_labels_are_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="There are no labels in .*: make them with cologen data label"):
        Labels(tmp_path).things("a", SIZE)
    (tmp_path / "a.jsonl").write_text('{"id": "a", "things": 3}\n{"id": "b"')
    with pytest.raises(ValueError, match="a.jsonl is damaged at byte 25"):
        Labels(tmp_path).things("a", SIZE)


def test_the_command_labels_a_set_and_says_by_what(tmp_path, models, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layouts.ade20k(tmp_path / "ade", 4)
    (tmp_path / "a.toml").write_text('[[stages]]\nname = "inpaint"\ndata = ["ade20k"]\n[data.ade20k]\npath = "ade"\n')
    words = ["data", "label", "a.toml", "ade20k", "--detector", str(models[0]), "--segmenter", str(models[1])]
    for share in ("0/2", "1/2"):
        code = cli.main([*words, "--out", "labels", "--shard", share, "--threshold", "0", "--device", "cpu"])
        said = capsys.readouterr()
        assert code == 0, said.err
        assert said.out.splitlines()[-1] == "0 of 2 samples are broken; phrases by stop words"
    assert sorted(Labels(tmp_path / "labels").positions) == [f"ADE_train_{i:08}" for i in range(1, 5)]


@pytest.mark.parametrize(
    "folder, sentence",
    [("nothing", "There is no detector in .*nothing, expected config.json and .*: download IDEA-Research/grounding-dino-base"),
     ("pickle", "There is no detector in .*pickle, expected config.json"),
     ("damaged", "damaged is no model that transformers can open")],
)  # fmt: skip
def test_models_that_are_not_there_are_a_sentence(tmp_path, models, folder, sentence):
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle/config.json").write_text((models[0] / "config.json").read_text())
    (tmp_path / "pickle/pytorch_model.bin").write_bytes(b"x")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/config.json").write_text((models[0] / "config.json").read_text())
    (tmp_path / "damaged/model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises((FileNotFoundError, ValueError), match=sentence):
        open_labeller(tmp_path / folder, models[1], "cpu", 0.3)


def test_a_set_of_edits_has_nothing_to_label(tmp_path):
    layouts.magicbrush(tmp_path)
    stream = Stream(open_dataset("magicbrush", {"path": str(tmp_path)}).reader, "magicbrush")
    with pytest.raises(ValueError, match="magicbrush holds no single pictures"):
        list(write_labels(stream, label_box, "test", tmp_path / "labels"))
