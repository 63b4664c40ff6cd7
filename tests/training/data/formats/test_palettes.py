"""Palettes: the published tables, and which classes they merge."""

import hashlib

import numpy as np
from cologen.training.data.formats.palettes import ADE20K, COCO, COCO_STUFF, MERGED, PALETTES


def test_palettes_are_the_published_tables():
    """By the SHA-256 of ade20k_palette.npy's bytes (without its first row) and coco_stuff_palette.npy's, as ControlNet++
    publishes them."""
    known = {
        150: (ADE20K, "ce475c9151035eff51f4cf27fd7d906959b1480f6d15b9423ae2417c1b23a0ed"),
        133: (COCO, "efcc320916d0acb3f51547ec72e0c0218aafc04dc222894062fb087f5233dbc2"),
    }
    for count, (table, digest) in known.items():
        assert table.shape == (count, 3) and hashlib.sha256(table.tobytes()).hexdigest() == digest
        assert PALETTES[count] is table
    assert ADE20K[2].tolist() == [6, 230, 230] and COCO[0].tolist() == [220, 20, 60], "sky, person"


def test_coco_stuff_takes_the_panoptic_colours():
    """Numbers and names as in the sets' own lists of labels."""
    black = [0, 0, 0]
    # person, bicycle, stop sign, toothbrush, banner, bridge, road, window
    own = {1: 0, 2: 1, 13: 11, 90: 79, 92: 80, 95: 82, 149: 100, 181: 115}
    # tree and branch, sky and clouds, grass and straw, carpet
    merged = {169: 116, 94: 116, 157: 119, 106: 119, 124: 125, 163: 125, 101: 132}
    for number, row in {**own, **merged}.items():
        assert COCO_STUFF[number - 1].tolist() == COCO[row].tolist(), number
    for number in (12, 26, 66, 91, 104, 132, 182):  # not used; cloth, metal and wood are no panoptic category
        assert COCO_STUFF[number - 1].tolist() == black
    assert len(PALETTES[171]) == 171 and np.array_equal(PALETTES[171][11], COCO_STUFF[12]), "stop sign"
    assert sum(map(len, MERGED.values())) == 43 and PALETTES[171][170].tolist() == black, "wood comes last"
