"""COCO's masks against pycocotools, and damaged ones."""

import tracemalloc

import numpy as np
import pytest
from cologen.training.data.formats.picture_files import BrokenFile
from cologen.training.data.formats.run_length_masks import decode_mask, encode_mask, pack_counts, unpack_counts
from hypothesis import given, settings
from hypothesis import strategies as st

tools = pytest.importorskip("pycocotools.mask")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def theirs(polygons, size) -> np.ndarray:
    return tools.decode(tools.merge(tools.frPyObjects(polygons, *size))).astype(bool)


@pytest.mark.parametrize("seed", range(40))
def test_polygons_are_filled_as_coco_fills_them(seed):
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(1, 60)), int(rng.integers(1, 60)))
    spread = rng.choice([1.0, 1.6, 3.0])  # corners outside of the picture, too
    polygons = [
        (rng.uniform(-0.3, spread, (int(rng.integers(3, 12)), 2)) * size[::-1]).round(2).ravel().tolist()
        for _ in range(int(rng.integers(1, 4)))
    ]
    assert np.array_equal(decode_mask(polygons, size), theirs(polygons, size))


@pytest.mark.parametrize("seed", range(20))
def test_long_edges_are_traced_as_coco_traces_them(seed):
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(1, 30)), int(rng.integers(1, 30)))
    polygons = [(rng.normal(0, 300 ** rng.uniform(0, 1.7, (5, 2))) + 10).round(3).ravel().tolist() for _ in range(8)]
    for polygon in polygons:
        assert np.array_equal(decode_mask([polygon], size), theirs([polygon], size)), polygon


def test_what_a_mask_costs_follows_the_pictures_size():
    far = [[0, 0, 199_000, 199_000, 0, 199_000]] * 100
    tracemalloc.start()
    decode_mask(far[:16], (64, 64))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    with pytest.raises(BrokenFile, match="pass over the picture more than 64 times"):
        decode_mask(far, (64, 64))
    comb = [value for i in range(5000) for value in (64 * (i % 2), i % 64)]
    with pytest.raises(BrokenFile, match="pass over the picture more than 64 times"):
        decode_mask([comb], (64, 64))


@pytest.mark.parametrize(
    "polygon",
    [
        [2, 2, 8, 2, 8, 8, 2, 8],
        [2.5, 2.5, 8.5, 2.5, 8.5, 8.5, 2.5, 8.5],
        [0, 0, 10, 0, 10, 10, 0, 10],
        [1, 1, 1, 1, 1, 1],
        [0, 0, 9, 9, 0, 9, 9, 0],
        [3, 0, 3, 9, 4, 9, 4, 0],
    ],
)
def test_straight_crossing_and_empty_polygons_too(polygon):
    assert np.array_equal(decode_mask([polygon], (10, 10)), theirs([polygon], (10, 10)))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**31))
def test_run_lengths_are_read_and_written_as_coco_does(height, width, share, seed):
    mask = np.random.default_rng(seed).random((height, width)) < share
    theirs = tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = encode_mask(mask)
    assert ours == {"size": theirs["size"], "counts": theirs["counts"].decode()}
    assert np.array_equal(decode_mask(ours, mask.shape), mask)
    assert np.array_equal(decode_mask({**ours, "counts": unpack_counts(ours["counts"])}, mask.shape), mask)


@given(st.lists(st.integers(0, 10**6), max_size=20))
def test_packed_is_unpacked_again(counts):
    assert unpack_counts(pack_counts(counts)) == counts


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2, 3]],
        [[1, 2, 3, 4, 5]],
        [["a"] * 6],
        [[1e300] * 6],
        [[float("nan")] * 6],
        None,
        3,
        "abc",
        {"size": [4, 4]},
        {"size": [4, 5], "counts": [20]},
        {"size": [4, 4], "counts": [17]},
        {"size": [4, 4], "counts": [-1, 17]},
        {"size": [4, 4], "counts": [10**30]},
        {"size": [4, 4], "counts": [2**62] * 4 + [16]},
        {"size": [4, 4], "counts": [2**63, 2**63, 16]},
        {"size": [4, 4], "counts": [[16]]},
        {"size": [4, 4], "counts": [15.5, 0.5]},
        {"size": [4, 4], "counts": ["x"]},
        {"size": [4, 4], "counts": "\x00"},
        {"size": [4, 4], "counts": "o" * 50},
        {"size": [4, 4], "counts": "o"},
        {"size": 4, "counts": [16]},
    ],
)
def test_a_damaged_mask_is_a_sentence(segmentation):
    with pytest.raises(BrokenFile, match="a mask is neither polygons nor run lengths"):
        decode_mask(segmentation, (4, 4))
