"""Route maps show each block's expert where it is, at the size of a node, in colours that stay apart for everyone."""

from itertools import combinations

import numpy as np
import pytest
import torch
from cologen.prw.router import Route
from cologen.training.monitor.route_map import (
    COLOURS,
    EMPTY,
    FONT,
    LEFT,
    LINE,
    MARGIN,
    PAPER,
    WIDTH,
    cut_words,
    draw_routes,
    wrap_words,
)
from PIL import ImageFont

NAMES = ("inpaint", "ground", "control")
SIGHT = {
    "all": np.eye(3),
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""What people see of linear RGB (Machado, Oliveira and Fernandes, 2009)."""
APART, CONTRAST = 30, 4
"""Steps in CIELAB between two colours, of which 2 to 3 are just seen; lightness against the paper, 3 for graphics in WCAG."""


def make_routes(double, single, gate=1.0):
    blocks = [*(f"double_blocks.{i}" for i in range(double)), *(f"single_blocks.{i}" for i in range(single))]
    return {
        block: Route(torch.tensor([i % len(NAMES)]), torch.tensor([gate]), torch.ones(1, len(NAMES)))
        for i, block in enumerate(blocks)
    }


def read_row(picture, row):
    """The colours of a row of tiles from left to right, without the paper between them."""
    pixels = np.asarray(picture)[MARGIN + LINE * (1 + row) + 2, LEFT : WIDTH - MARGIN + 2]
    is_tile = (pixels != PAPER).any(-1)
    starts = np.flatnonzero(is_tile & ~np.roll(is_tile, 1))
    return [tuple(int(value) for value in pixels[start]) for start in starts], is_tile


@pytest.mark.parametrize("double, single", [(19, 38), (8, 48), (5, 20), (2, 2), (1, 1)])
def test_every_block_has_a_tile_and_the_taken_expert_a_bright_one(double, single):
    picture = draw_routes([("edit, source 1", NAMES, make_routes(double, single), {})])
    assert picture.width == WIDTH
    for row in range(len(NAMES)):
        colours, is_tile = read_row(picture, row)
        assert len(colours) == double + single and not is_tile[-1]
        assert colours == [COLOURS[row] if i % len(NAMES) == row else EMPTY for i in range(double + single)]


def test_half_a_gate_is_half_the_way_to_the_colour_and_changes_have_rows():
    routes = make_routes(2, 2, 0.5)
    changes = {"newest": dict.fromkeys(routes, 0.0), "none": dict.fromkeys(routes, 7.0)}
    picture = draw_routes([("t", NAMES, routes, changes)])
    middle = np.add(EMPTY, COLOURS[0]) / 2
    assert np.abs(np.array(read_row(picture, 0)[0][0]) - middle).max() <= 0.5
    newest, none = (read_row(picture, len(NAMES) + i)[0] for i in (0, 1))
    assert newest == [EMPTY] * 4 and none[0] == (222, 226, 232)


def test_several_sources_stand_below_each_other_and_no_source_says_so():
    one = ("t", NAMES, make_routes(2, 2), {})
    alone, both = draw_routes([one]), draw_routes([one, one])
    assert both.height == 2 * alone.height and (np.asarray(both)[: alone.height] == np.asarray(alone)).all()
    none = np.asarray(draw_routes([]))
    assert none.shape[1] == WIDTH and none.std() > 5


def test_long_titles_wrap_and_long_names_are_cut():
    font = ImageFont.load_default(size=FONT)
    title = "control, source 2: read by the whole model Template-KleinBase4B-ControlNet, which has no router"
    lines = wrap_words(title, font, WIDTH)
    assert len(lines) == 2 and " ".join(lines) == title and all(font.getlength(line) <= WIDTH for line in lines)
    assert wrap_words("x" * 200, font, 50) == ["x" * 200] and wrap_words("", font, 50) == [""]
    cut = cut_words("my_own_cat_of_long_name", font, LEFT)
    assert cut.endswith("...") and font.getlength(cut) <= LEFT < font.getlength(cut[:-3] + "abcd")
    assert cut_words("edit", font, LEFT) == "edit" and cut_words("edit", font, 3) == ""


def to_linear(colour):
    parts = np.array(colour) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def to_lab(linear):
    white = np.array([0.9505, 1.0, 1.089])
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = (np.cbrt(part) if part > 0.008856 else 7.787 * part + 16 / 116 for part in to_xyz @ linear / white)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_stay_apart_however_one_sees(sight):
    seen = [to_lab(np.clip(np.array(SIGHT[sight]) @ to_linear(colour), 0, 1)) for colour in COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > APART


def test_colours_stand_out_from_the_paper():
    paper, *light = (float(to_linear(colour) @ [0.2126, 0.7152, 0.0722]) + 0.05 for colour in (PAPER, *COLOURS))
    assert min(light) / paper > CONTRAST
