"""Training draws HED and line art by networks where their files are, by the classical code elsewhere, and says which."""

import logging

import numpy as np
import pytest
import torch
from cologen.prw.files.safetensors_writer import write_safetensors
from cologen.training.data.encoded.cache_index import write_json
from cologen.training.data.sample import Sample
from cologen.training.data.sets import Knobs, open_dataset
from cologen.training.data.tasks.control import lineart, make_control_example
from cologen.training.data.tasks.examples import ExampleStream
from cologen.training.data.tasks.hed_network import HedNetwork, open_hed
from cologen.training.data.tasks.learned_maps import LearnedMaps
from cologen.training.data.tasks.line_network import open_lines
from cologen.training.monitor.report import write_report
from cologen.training.recipes.curriculum import make_curriculum
from cologen.training.setup.describe_maps import describe_maps
from cologen.training.setup.stage_data import describe_set_data
from layouts import coco_stuff
from layouts import folder as folder_of_pairs
from tiny_networks import tiny_lines


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    write_safetensors(folder / "ControlNetHED.safetensors", HedNetwork().state_dict(), {})
    tiny_lines(folder / "image-to-line-drawings.pth")
    return folder


def a_sample(**maps):
    return Sample("a", np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8), "words", maps=maps)


def control(sample, kind):
    return make_control_example(np.random.default_rng(0), sample, (kind,)).source


def test_networks_draw_what_they_are_there_for(networks):
    sample = a_sample()
    learned = LearnedMaps(str(networks)).add_to(sample)
    pixels = torch.from_numpy(sample.picture).movedim(-1, 0)[None] / 255
    wanted = (open_lines(networks / "image-to-line-drawings.pth")(pixels)[0, 0] * 255).byte().detach().numpy()
    assert (control(learned, "lineart") == wanted[..., None]).all()
    network = open_hed(networks / "ControlNetHED.safetensors")
    assert (control(learned, "hed") == network(sample.picture)).all()
    assert (control(learned, "canny") == control(sample, "canny")).all()
    own = np.full((48, 64, 3), 7, np.uint8)
    assert (control(LearnedMaps(str(networks)).add_to(a_sample(hed=own)), "hed") == own).all()


def test_without_files_nothing_changes(tmp_path):
    sample = a_sample()
    for folder in ("", str(tmp_path)):
        assert LearnedMaps(folder).add_to(sample) is sample and LearnedMaps(folder).identity == {}
    assert (control(sample, "lineart") == lineart(sample.picture)).all()


def test_a_set_draws_by_its_table_and_says_so_once(networks, tmp_path, caplog):
    coco_stuff(tmp_path / "coco")
    table = {"path": str(tmp_path / "coco"), "kinds": ["lineart"]}
    with caplog.at_level(logging.INFO):
        plain, drawn = (
            list(ExampleStream(open_dataset("coco-stuff", {**table, **more}), "control", 32).take(0))
            for more in ({}, {"maps": str(networks)})
        )
    assert [record.message for record in caplog.records if "maps are drawn" in record.message] == [
        "coco-stuff: maps are drawn: lineart without a network (maps names no folder of networks).",
        "coco-stuff: maps are drawn: lineart by image-to-line-drawings.pth.",
    ]
    for before, after in zip(plain, drawn, strict=True):
        assert (before.target == after.target).all() and (before.source == lineart(before.target)).all()
        assert (after.source == control(LearnedMaps(str(networks)).add_to(Sample("", after.target)), "lineart")).all()


def test_encoded_samples_are_of_the_networks_and_those_of_yesterday_are_found(networks, tmp_path):
    coco_stuff(tmp_path / "coco")
    (stage,) = make_curriculum({"stages": [dict(name="control", iterations=1, data=["coco-stuff"])]}).stages

    class Encoders:
        def identity(self):
            return "none"

    def name(**more):
        dataset = open_dataset("coco-stuff", {"path": str(tmp_path / "coco"), **more})
        return describe_set_data(stage, dataset, Encoders(), 32, 0).file

    (tmp_path / "empty").mkdir()
    assert name() == name(maps=str(tmp_path / "empty")) != name(maps=str(networks))
    assert "maps" not in repr(Knobs()), "as it was before there was such a key"


def test_a_run_s_report_says_what_drew_its_maps(networks, tmp_path):
    coco_stuff(tmp_path / "coco")
    folder_of_pairs(tmp_path / "own")
    (tmp_path / "control-cached").mkdir()
    tables = {
        "coco-stuff": {"path": str(tmp_path / "coco"), "kinds": ["hed"], "maps": str(networks)},
        "plain": {"set": "coco-stuff", "path": str(tmp_path / "coco"), "kinds": ["canny", "lineart"]},
        "own": {"set": "folder", "path": str(tmp_path / "own")},
        "cached": {"set": "coco-stuff", "cache": str(tmp_path)},
        "mine": {"cache": str(tmp_path)},  # whose set is not on this machine, and not named either
    }
    record = {"set": ["", {"kinds": ["hed", "lineart"]}], "maps": {"lineart": "1"}}
    write_json(tmp_path / "control-cached/cache.json", record)
    (tmp_path / "control-mine").mkdir()
    write_json(tmp_path / "control-mine/cache.json", record)
    stages = [dict(name="inpaint", iterations=1, data=["plain"]), dict(name="control", iterations=1, data=list(tables))]
    curriculum = make_curriculum({"stages": stages, "data": tables})
    found = describe_maps(curriculum)
    assert found == [
        ("control", "coco-stuff", "maps are drawn: hed by ControlNetHED.safetensors"),
        ("control", "plain", "maps are drawn: lineart without a network (maps names no folder of networks)"),
        ("control", "cached", "maps are drawn: hed without a network, lineart by image-to-line-drawings.pth"),
        ("control", "mine", "maps are drawn: hed without a network, lineart by image-to-line-drawings.pth"),
    ]
    write_report(tmp_path / "report.html", curriculum, 0, "r", found)
    assert "<td>maps are drawn: hed by ControlNetHED.safetensors</td>" in (tmp_path / "report.html").read_text()
    write_json(tmp_path / "control-mine/cache.json", {"size": 64})
    with pytest.raises(ValueError, match="control-mine/cache.json does not say what was cached, expected what cologen"):
        describe_maps(curriculum)
