"""`cologen data list` and `cologen data check`: counts, what is wrong, and sheets."""

import layouts
import numpy as np
import pytest
from cologen.training.cli import main as cli
from cologen.training.data.sample import Example
from cologen.training.data.sets import DATASETS
from cologen.training.monitor.contact_sheet import GAP, SIDE, draw_contact_sheet
from layouts import LAYOUTS
from pack import ROOT
from PIL import Image

RECIPE = """
resolution = 48
[[stages]]
name = "inpaint"
data = ["ade20k", "journeydb", "toy"]
[[stages]]
name = "edit"
data = ["magicbrush"]
[data.ade20k]
path = "ade20k"
[data.journeydb]
path = "journeydb"
[data.magicbrush]
path = "magicbrush"
"""


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ade20k", "journeydb", "magicbrush"):
        LAYOUTS[name][0](tmp_path / name)
    (tmp_path / "mine.toml").write_text(RECIPE)
    return tmp_path


def run(capsys, *words):
    code = cli.main(["data", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err


def test_the_list_has_every_set_with_its_layouts(capsys):
    code, lines, _ = run(capsys, "list")
    assert code == 0
    for name, row in DATASETS.items():
        (place,) = [i for i, line in enumerate(lines) if line.split()[:1] == [name]]
        assert lines[place].split(maxsplit=1)[1] == ", ".join(row.feeds)
        assert any(row.licence in line for line in lines[place : place + 2])
        for reader in row.readers:
            remark = "" if reader.HAS_THINGS else " (no objects: for holes of their shapes it wants labels)"
            assert f"layout: {reader.LAYOUT}{remark}" in [line.strip() for line in lines]


def test_the_page_has_every_set_too():
    page = (ROOT / "docs/data.md").read_text()
    for name, row in DATASETS.items():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {name} ")]
        assert row.home in line and row.licence in line and ", ".join(row.feeds) in line


def test_a_check_counts_and_leaves_a_sheet_a_task(there, capsys):
    code, lines, error = run(capsys, "check", "mine.toml", "--n", 2)
    assert code == 0, error
    lines = [line for line in lines if line[:1] != " "]  # without remarks
    assert [line.split()[:6] for line in lines[:3]] == [
        ["inpaint", "ade20k", "2", "of", "3", "read,"],
        ["inpaint", "journeydb", "2", "read,", "2", "examples"],
        ["edit", "magicbrush", "2", "of", "3", "read,"],
    ]
    assert lines[3:] == ["out/data/mine/inpaint.png", "out/data/mine/edit.png"]
    with Image.open(there / lines[3]) as page:
        assert page.width == GAP + 2 * (2 * SIDE + 2 * GAP)


def test_a_check_names_what_is_wrong_and_goes_on(there, capsys):
    (there / "ade20k/annotations/training/ADE_train_00000002.png").write_bytes(b"damaged")
    code, lines, error = run(capsys, "check", "mine.toml", "data.journeydb.path=nowhere", "--out", "sheets")
    assert code == 1 and error == "cologen: 1 of the recipe's sets cannot be used as they are: see above.\n"
    assert "2 examples" in lines[0] and lines[0].endswith("1 broken")
    assert lines[1].strip().startswith("ADE_train_00000002: ADE_train_00000002.png is not a picture that can be read")
    assert "There is no nowhere (data.journeydb), expected" in lines[2]
    assert lines[3].split()[:2] == ["edit", "magicbrush"] and (there / "sheets/edit.png").exists()


def test_pictures_with_nothing_to_find_are_told_apart_from_broken_ones(there, capsys):
    for i in range(3):
        layouts.write_file(there / f"own/{i}.png", layouts.encode_picture(layouts.draw_picture(i), "PNG"))
    (there / "own/a.jsonl").write_text("\n".join(f'{{"picture": "{i}.png", "caption": "c"}}' for i in range(3)))
    (there / "b.toml").write_text(
        '[[stages]]\nname = "ground"\ndata = ["own"]\n[data.own]\nset = "json-lines"\npath = "own"\n'
    )
    code, lines, _ = run(capsys, "check", "b.toml")
    assert code == 1 and lines[0].endswith("3 read, 0 examples, 3 with nothing for ground")
    assert "There is no example for ground among 3 samples" in lines[1]


def test_a_recipe_of_the_toy_world_alone_has_nothing_to_check(capsys):
    code, lines, _ = run(capsys, "check", "toy")
    assert code == 0 and lines == ["The recipe names no data set: all its data is the built-in world's."]


def test_a_sheet_shows_source_and_target_side_by_side():
    source, target = np.full((8, 8, 3), (255, 0, 0), np.uint8), np.full((8, 8, 3), (0, 0, 255), np.uint8)
    page = np.array(draw_contact_sheet([("a", Example("id", "edit", "word " * 99, source, target))] * 3))
    for x, y in ((GAP, GAP), (GAP + 2 * SIDE + 2 * GAP, GAP)):
        assert (page[y : y + SIDE, x : x + SIDE] == (255, 0, 0)).all()
        assert (page[y : y + SIDE, x + SIDE : x + 2 * SIDE] == (0, 0, 255)).all()
