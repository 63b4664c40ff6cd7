"""The paper's benchmarks are read as they are published, and what is wrong with a folder is a sentence."""

import json
import re

import benchmark_layouts as layouts
import numpy as np
import pack  # noqa: F401
import pytest
from benchmark_layouts import LAYOUTS, draw_picture
from cologen.training.data.formats.picture_files import BrokenFile
from cologen.training.data.tasks.canny import canny
from cologen.training.data.tasks.ground import COLOURS
from cologen.training.evaluation import benchmarks
from cologen.training.evaluation.case import fit_area, fit_square, read_pixels, resize
from cologen.training.evaluation.generate import limit_cases
from cologen.training.evaluation.lines import LineNetwork
from cologen.training.evaluation.metrics import METRICS, Answer
from cologen.training.evaluation.networks import CHECKPOINTS, MetricNetworks, MetricUnavailable
from cologen.training.evaluation.protocols import PROTOCOLS
from layouts import SIZE as PICTURE
from PIL import Image
from tiny_networks import tiny_lines

COUNTS = {"magicbrush": 3, "emuedit": 3, "dreambench": 750, "ade20k": 2, "cocostuff": 2, "gedit": 3, "inpainting": 3}
COUNTS |= dict.fromkeys(("refcoco", "refcoco+", "refcocog"), 3)


def cases(name, root, side=64):
    LAYOUTS[name](root)
    tiny_lines(root / CHECKPOINTS["lines"].name)
    return list(limit_cases(PROTOCOLS[name].read(root, side, MetricNetworks(root))))


def test_every_protocol_has_a_layout_here():
    assert LAYOUTS.keys() == PROTOCOLS.keys()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_case_is_whole(name, tmp_path):
    found = cases(name, tmp_path)
    assert len(found) == COUNTS.get(name, 10)
    for case in found[:4]:
        for picture in (case.source, case.reference, *case.extra.get("photos", ())):
            if picture is not None:
                picture = read_pixels(picture)
                assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
        assert case.prompt and isinstance(case.prompt, str)


def test_magicbrush_starts_every_turn_from_the_true_picture(tmp_path):
    found = cases("magicbrush", tmp_path)
    assert [case.id for case in found] == ["30-1", "139-1", "139-2"]
    assert (read_pixels(found[2].source) == draw_picture(140)).all() and (
        read_pixels(found[2].reference) == draw_picture(141)
    ).all()
    assert found[2].prompt == "edit 2 of 139" and found[2].extra == {"caption": "caption of 139-output2.png"}


def test_emu_edit_is_its_test_split(tmp_path):
    found = cases("emuedit", tmp_path)
    assert [case.prompt for case in found] == [f"instruction {i}" for i in range(3)]
    assert found[1].extra == {"caption": "after 1"} and found[1].reference is None
    assert (read_pixels(found[1].source) == draw_picture(1)).all()


def test_dreambench_has_25_prompts_of_its_kind_for_each_of_30_subjects(tmp_path):
    found = cases("dreambench", tmp_path)
    words = {case.id: case.prompt for case in found}
    assert len(words) == PROTOCOLS["dreambench"].count
    assert words["cat2-03"] == "a cat wearing 3" and words["thing20-24"] == "a stuffed animal on 24"
    case = next(case for case in found if case.id == "dog-00")
    assert len(case.extra["photos"]) == 2 and (read_pixels(case.source) == read_pixels(case.extra["photos"][0])).all()


def test_edges_are_drawn_at_the_side_that_is_asked_for(tmp_path):
    found = cases("multigen-canny", tmp_path)[9]
    assert (read_pixels(found.source) == canny(resize(draw_picture(9), (64, 64)))).all() and read_pixels(
        found.source
    ).any()
    assert (read_pixels(found.reference) == draw_picture(9)).all()


def test_line_art_is_the_measuring_networks(tmp_path):
    found = cases("multigen-lineart", tmp_path)[0]
    lines = LineNetwork(tmp_path / CHECKPOINTS["lines"].name, "cpu").predict(resize(draw_picture(0), (64, 64)))
    assert (read_pixels(found.source) == lines[..., None]).all()
    with pytest.raises(MetricUnavailable, match=r"There is no image-to-line-drawings\.pth in"):
        list(PROTOCOLS["multigen-lineart"].read(tmp_path, 64, MetricNetworks(tmp_path / "none")))


def test_ade20k_counts_from_one_and_leaves_out_what_is_no_class(tmp_path):
    raw, found = layouts.draw_labels(1, 4, 0), read_pixels(cases("ade20k", tmp_path)[1].extra["labels"])
    assert (found[raw == 0] == 255).all() and (found[raw > 0] == raw[raw > 0] - 1).all() and (raw == 0).any()


def test_coco_stuff_counts_from_zero(tmp_path):
    found = read_pixels(cases("cocostuff", tmp_path)[1].extra["labels"])
    assert (found[8:] == layouts.draw_labels(1, 4, 0)[8:]).all() and (found[:8, :8] == 255).all()


def test_gedit_is_asked_in_english(tmp_path):
    found = cases("gedit", tmp_path)
    assert [case.prompt for case in found] == ["en 0", "en 1", "en 2"]
    assert [case.extra["group"] for case in found] == ["color_alter", "text_change", "color_alter"]
    assert read_pixels(found[0].source).shape == (96, 128, 3)


def test_inpainting_asks_every_bank_for_the_same_hole(tmp_path):
    first, again = cases("inpainting", tmp_path), cases("inpainting", tmp_path)
    assert [case.id for case in first] == [f"{id:012}" for id in (9, 25, 30)]
    for case, other in zip(first, again):
        hole, source, picture = case.extra["mask"], read_pixels(case.source), read_pixels(case.reference)
        assert hole.any() and not hole.all() and picture.shape[:2] == fit_area(picture.shape, 64) == hole.shape
        assert (source[hole] == 128).all() and (source[~hole] == picture[~hole]).all()
        assert (hole == other.extra["mask"]).all()
        words = f"dog {int(case.id)}, 0" if case.extra["group"] == "random" else ("dog", "sky-other", "sky")
        assert case.prompt in words


def test_refcoco_asks_for_the_box_of_every_phrase_that_fits_one_thing(tmp_path):
    found = cases("refcoco", tmp_path, side=128)
    assert sorted(re.search("left man|man in red|right man", case.prompt).group() for case in found) == [
        "left man", "man in red", "right man",
    ]  # fmt: skip
    annotations = json.loads((tmp_path / "refcoco/instances.json").read_text())["annotations"]
    for case in found:
        asked, size = case.extra["asked"], read_pixels(case.source).shape[:2]
        number = 31 if "right" in case.prompt else 30
        (polygon,) = next(one["segmentation"] for one in annotations if one["id"] == number)
        scale = size[1] / PICTURE[1], size[0] / PICTURE[0]
        wanted = [min(polygon[::2]) * scale[0], min(polygon[1::2]) * scale[1]]
        wanted += [max(polygon[::2]) * scale[0], max(polygon[1::2]) * scale[1]]
        assert np.allclose(asked.box, wanted, atol=2.5) and f" {asked.colour}" in case.prompt


def test_a_drawn_box_is_measured_by_its_overlap(tmp_path):
    (case, *_) = cases("refcoco", tmp_path, side=128)
    source, asked = read_pixels(case.source), case.extra["asked"]

    def score(box):
        picture = source.copy()
        x0, y0, x1, y1 = box
        for part in (np.s_[y0:y1, x0], np.s_[y0:y1, x1 - 1], np.s_[y0, x0:x1], np.s_[y1 - 1, x0:x1]):
            picture[part] = COLOURS[asked.colour]
        answer = Answer(case, picture)
        return [METRICS[name].score(MetricNetworks(tmp_path), answer) for name in ("box_iou", "box_hit")]

    x0, y0, x1, y1 = asked.box
    assert score(asked.box) == [1, 100]
    narrow = x0 + (x1 - x0) * 2 // 5
    iou, hit = score((x0, y0, narrow, y1))
    assert iou == pytest.approx((narrow - x0) / (x1 - x0)) and hit == 0
    assert [METRICS[name].score(MetricNetworks(tmp_path), Answer(case, source)) for name in ("box_iou", "box_hit")] == [
        0,
        0,
    ]


def test_sizes():
    assert fit_square((3, 9, 3), 512) == (512, 512)
    assert fit_area((1024, 1024, 3), 512) == (512, 512) and fit_area((900, 1600, 3), 512) == (384, 688)
    assert fit_area((10, 5000, 3), 64) == (16, 1424)  # 64 x 64 would have 3 rows


@pytest.mark.parametrize(
    "name, spoil, sentence",
    [
        ("magicbrush", lambda root: (root / "edit_sessions.json").write_text("{"), "is no whole JSON"),
        ("magicbrush", lambda root: (root / "edit_sessions.json").write_text("[1]"), "unpack the benchmark again"),
        ("magicbrush", lambda root: (root / "local_descriptions.json").write_text("{}"), "KeyError: '30'"),
        (
            "magicbrush",
            lambda root: replace_text(root / "edit_sessions.json", '"edit 1 of 30"', "5"),
            "a prompt is 5, no text",
        ),
        ("magicbrush", lambda root: (root / "edit_sessions.json").unlink(), "There is no edit_sessions.json in"),
        (
            "dreambench",
            lambda root: (root / "dataset/dog/00.jpg").write_bytes(b"GIF89a"),
            "not a picture that can be read",
        ),
        (
            "gedit",
            lambda root: layouts.write_parquet(root / "data/train-1.parquet", [{"key": "a"}]),
            "has no column task_type",
        ),
        ("ade20k", lambda root: (root / "data").rename(root / "x") and strip(root), "holds no validation*.parquet"),
    ],
)
def test_what_is_wrong_with_a_folder_is_a_sentence(tmp_path, name, spoil, sentence):
    LAYOUTS[name](tmp_path)
    spoil(tmp_path)
    with pytest.raises((BrokenFile, FileNotFoundError)) as raised:
        for case in PROTOCOLS[name].read_cases(tmp_path, 64, MetricNetworks(tmp_path)):
            read_pixels(case.source)
    assert sentence in str(raised.value) and "\n" not in str(raised.value)


def replace_text(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def strip(root):
    for path in root.rglob("*.parquet"):
        path.rename(path.with_name("rows.parquet"))


def test_a_session_cannot_name_files_elsewhere(tmp_path):
    Image.fromarray(draw_picture(0)).save(tmp_path / "secret.png")
    LAYOUTS["magicbrush"](tmp_path / "mb")
    text = (tmp_path / "mb/edit_sessions.json").read_text()
    (tmp_path / "mb/edit_sessions.json").write_text(text.replace('"30-input.png"', '"../../../secret.png"'))
    first = next(iter(benchmarks.read_magicbrush(tmp_path / "mb", 64, MetricNetworks(tmp_path))))
    with pytest.raises(BrokenFile, match=r"secret\.png leads out of the folder"):
        read_pixels(first.source)


def test_an_id_twice_is_refused(tmp_path):
    LAYOUTS["gedit"](tmp_path)
    path = tmp_path / "data/train-00000-of-00001.parquet"
    path.with_name("train-copy.parquet").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="Two cases of the benchmark are called 0en"):
        list(limit_cases(PROTOCOLS["gedit"].read(tmp_path, 64, MetricNetworks(tmp_path))))
